import {
  backoffMs,
  type Clock,
  deferred,
  ForgeError,
  type Logger,
  messageOf,
  sleep,
  type Timer,
} from '../kernel/index.js'
import type { Lead } from './leads.js'

/** One stretch of leadership. */
export interface Term {
  /** A UUID of its own: what only the leader may write names it (`forge.leads(role, id)` in SQL). */
  readonly id: string
  /** Rises with each term of the role, whichever node has it: for stores outside PostgreSQL that can compare. */
  readonly n: number
}

export interface Leading {
  readonly role: string
  readonly term: Term
  /** Aborts when this node leads no longer, or cannot be sure that it does. */
  readonly signal: AbortSignal
}

/**
 * Runs while this node leads, until its signal aborts. When it returns before that, this node is done with the role; when
 * it throws, it asks again after a pause.
 */
export type LeaderWork = (leading: Leading) => Promise<void> | void

/** A role that this process would lead. */
export interface LeaderPost extends AsyncDisposable {
  readonly role: string
  /** The term of this node; null while it does not lead. */
  readonly term: Term | null
  /** Gives it up: aborts the work, lets it end, and lets others begin. Resolves when they may. */
  stop(): Promise<void>
}

/** Of a beat, in monotonic milliseconds. */
export interface Renewal {
  readonly sentAtMs: number
  /** The term may be trusted until then. */
  readonly trustedUntilMs: number
}

export interface CampaignParts {
  readonly clock: Clock
  readonly log: Logger
  /** Whether it wants to lead has changed. */
  changed(): void
  resign(role: string): Promise<void>
  /** The work of an earlier campaign of this process for the role goes on until then. */
  readonly after?: Promise<void> | undefined
}

const pause = { kind: 'exponential', baseMs: 1_000, maxMs: 60_000, jitter: 0.25 } as const
/** Work that ends within it keeps others from beginning; then the role is given up all the same. */
const settleMs = 500

/** One role that this process would lead, and the work that it does while it leads. */
export class Campaign {
  readonly role: string
  readonly #work: LeaderWork
  readonly #parts: CampaignParts
  #term: Term | null = null
  #abort: AbortController | null = null
  /** The work of this term, or of the last one, while it has not settled. */
  #working: Promise<void> | null = null
  #locked = false
  #trustedUntilMs = 0
  #stoodDownMs = Number.NEGATIVE_INFINITY
  #trust: Timer | null = null
  #pause: Timer | null = null
  #waiting = false
  #failures = 0
  #ended = false
  /** It is given up, and that is said. */
  #over: Promise<void> | null = null

  constructor(role: string, work: LeaderWork, parts: CampaignParts) {
    this.role = role
    this.#work = work
    this.#parts = parts
    if (!parts.after) return
    this.#waiting = true
    void parts.after.then(() => {
      this.#waiting = false
      parts.changed()
    })
  }

  /** Whether this node should ask for the role. While the work of an earlier term goes on, others may have it. */
  get wanted(): boolean {
    const free = this.#term !== null || !this.#working
    return free && !this.#ended && !this.#waiting && !this.#pause
  }

  /** The term that this node holds and trusts. */
  get term(): Term | null {
    return this.#term
  }

  /** It will not lead again. */
  get ended(): boolean {
    return this.#ended
  }

  /** Resolves when nothing of its work runs any more, and a role that it gave up is given up. */
  async settled(): Promise<void> {
    await this.#working
    await this.#over
  }

  /** What a renewal said; undefined: another node leads, or nobody. */
  heard(lead: Lead | undefined, { sentAtMs, trustedUntilMs }: Renewal): void {
    if (this.#term && lead?.term !== this.#term.id) this.lose('another term has begun')
    const { clock } = this.#parts
    // What comes late says nothing of now: the main loop may have stood still.
    if (!lead?.renewed || !this.wanted || trustedUntilMs <= clock.monotonicMs()) return
    // Nor does what was asked before it stood down: its term may be given up since.
    if (sentAtMs < this.#stoodDownMs) return
    this.#locked = lead.locked
    this.#trustedUntilMs = trustedUntilMs
    this.#trust?.cancel()
    this.#trust = clock.timer(trustedUntilMs - clock.monotonicMs(), () => this.#lapse())
    if (!this.#term) this.#begin(lead)
  }

  /** The connection of the pulse broke: who held the lock by it holds it no more, and others may begin at once. */
  shaken(): void {
    if (this.#locked) this.lose('the connection that held its lock broke')
  }

  lose(why: string): void {
    if (!this.#term) return
    this.#stand(why)
    this.#parts.changed()
    void this.#giveUpLate()
  }

  /** For good. The work has a moment to end before others are let in. */
  end(): Promise<void> {
    return (this.#over ??= this.#end())
  }

  async #end(): Promise<void> {
    this.#ended = true
    this.#pause?.cancel()
    this.#stand('this node gives it up')
    this.#parts.changed()
    await this.#settles()
    await this.#parts.resign(this.role)
  }

  #lapse(): void {
    if (this.#trustedUntilMs <= this.#parts.clock.monotonicMs()) this.lose('its term was not renewed in time')
  }

  /** Stands down: from here on this node does not believe that it leads. */
  #stand(why: string): void {
    this.#trust?.cancel()
    if (this.#term) this.#stoodDownMs = this.#parts.clock.monotonicMs()
    this.#term = null
    this.#locked = false
    this.#abort?.abort(new ForgeError('FORGE_LEADERSHIP_LOST', `Role '${this.role}': ${why}.`))
    this.#abort = null
  }

  /** Work that does not end keeps this node from leading again: then others shall have the role, and its lock. */
  async #giveUpLate(): Promise<void> {
    await this.#settles()
    if (this.#working) await this.#parts.resign(this.role)
  }

  async #settles(): Promise<void> {
    if (!this.#working) return
    const patience = new AbortController()
    void this.#working.then(() => patience.abort())
    await sleep(this.#parts.clock, settleMs, patience.signal)
  }

  #begin({ term, n }: Lead): void {
    const abort = new AbortController()
    this.#abort = abort
    this.#term = Object.freeze({ id: term, n })
    const settled = deferred<void>()
    this.#working = settled.promise
    void this.#run({ role: this.role, term: this.#term, signal: abort.signal }).then(() => {
      this.#working = null
      settled.resolve()
      this.#parts.changed()
    })
  }

  async #run(leading: Leading): Promise<void> {
    const { clock } = this.#parts
    const beganMs = clock.monotonicMs()
    try {
      await this.#work(leading)
      if (leading.signal.aborted) return
      this.#ended = true
    } catch (error) {
      if (leading.signal.aborted) return
      this.#fail(error, clock.monotonicMs() - beganMs)
    }
    this.#stand('its work has ended')
    this.#parts.changed()
    await this.#parts.resign(this.role)
  }

  #fail(error: unknown, ranMs: number): void {
    const { clock, log } = this.#parts
    // What ran well for long has begun anew.
    this.#failures = ranMs > pause.maxMs ? 1 : this.#failures + 1
    const ms = backoffMs(pause, this.#failures, Math.random())
    log.error(
      `forge: the work of role '${this.role}' failed; it is asked for again in ${ms} ms: ${messageOf(error)}`,
    )
    this.#pause = clock.timer(ms, () => {
      this.#pause = null
      this.#parts.changed()
    })
  }
}
