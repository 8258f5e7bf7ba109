import { type Duration, durationMs, ForgeError, messageOf, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { firstFinal, stateName } from './job.js'
import { jobFinished, jobRetried } from './news.js'
import { type PolledRow, pollJobs } from './queries/list.js'

/** Somebody who wants to know what becomes of a job. */
export interface Follower {
  readonly id: string
  /** Monotonic milliseconds; Infinity: as long as it takes. */
  readonly untilMs: number
  /** True: wants to hear how the job stands with each poll, and not only how it ended. */
  readonly watches: boolean
  /** How the job stands or ended; true when that is news to it. */
  hear(row: PolledRow): boolean
  /** The job is neither unfinished nor in history; true when that ends the wait. */
  miss(): boolean
  /** `untilMs` has passed. */
  expire(): void
  fail(error: ForgeError): void
}

const fastestMs = 25
const slowestMs = 1_000
/** After a change that a watcher saw: more may follow soon. */
const livelyMs = 200
/** Asked for in one statement; with more followers the polls go round. */
const idsMax = 1_000
/** Every so many polls it is looked whether the jobs that are only waited for are there at all. */
const absentEvery = 4

/**
 * Follows jobs: all waiters and watchers of the process share one statement, every 25 ms at first, then up to 1 s apart.
 * What is finished or put back in this very process is asked for at once, and alone.
 */
export class Results {
  readonly #runtime: Runtime
  readonly #followers = new Map<string, Set<Follower>>()
  readonly #offs: readonly (() => void)[]
  /** Ids about which this process has just heard something. */
  readonly #heard = new Set<string>()
  #timer: Timer | null = null
  #polling = false
  #waitMs = fastestMs
  #polls = 0
  #stopped = false
  #offset = 0

  constructor(runtime: Runtime) {
    this.#runtime = runtime
    this.#offs = [
      runtime.news.on(jobFinished, ({ id }) => this.#hear(id)),
      runtime.news.on(jobRetried, ({ id }) => {
        if (this.#isWatched(id)) this.#hear(id)
      }),
    ]
  }

  wait(
    id: string,
    options: { readonly timeout?: Duration } | undefined,
    committed: boolean,
  ): Promise<unknown> {
    if (this.#stopped) return Promise.reject(new ForgeError('FORGE_STOPPED'))
    const timeoutMs = durationMs(options?.timeout ?? '30s', 'The timeout of result()')
    const untilMs = this.#runtime.clock.monotonicMs() + timeoutMs
    return new Promise((resolve, reject) => {
      this.#follow(waiterOf({ id, untilMs, committed, resolve, reject }), fastestMs)
    })
  }

  /** Tells the follower how the job stands, at once and at each change, until it ends or is let go. */
  watch(follower: Follower): void {
    if (this.#stopped) follower.fail(new ForgeError('FORGE_STOPPED'))
    else this.#follow(follower, 0)
  }

  unfollow(follower: Follower): void {
    const set = this.#followers.get(follower.id)
    set?.delete(follower)
    if (set?.size === 0) this.#followers.delete(follower.id)
  }

  stop(): void {
    this.#stopped = true
    for (const off of this.#offs) off()
    this.#timer?.cancel()
    for (const follower of this.#all()) follower.fail(new ForgeError('FORGE_STOPPED'))
    this.#followers.clear()
  }

  #follow(follower: Follower, firstMs: number): void {
    const set = this.#followers.get(follower.id) ?? new Set()
    this.#followers.set(follower.id, set.add(follower))
    if (firstMs === 0) this.#heard.add(follower.id)
    else if (this.#timer !== null && this.#waitMs <= fastestMs) return
    this.#waitMs = fastestMs
    this.#arm(firstMs)
  }

  #hear(id: string): void {
    if (!this.#followers.has(id)) return
    this.#heard.add(id)
    this.#arm(0)
  }

  #all(): Follower[] {
    return [...this.#followers.values()].flatMap((set) => [...set])
  }

  #isWatched(id: string): boolean {
    return this.#of(id).some(({ watches }) => watches)
  }

  #of(id: string): Follower[] {
    return [...(this.#followers.get(id) ?? [])]
  }

  #arm(ms: number): void {
    if (this.#polling || this.#stopped) return
    this.#timer?.cancel()
    this.#timer = this.#runtime.clock.timer(ms, () => void this.#poll())
  }

  async #poll(): Promise<void> {
    this.#polling = true
    this.#timer = null
    try {
      if (this.#heard.size > 0) await this.#askHeard()
      else await this.#askAll()
    } catch (error) {
      this.#runtime.log.debug(`forge: could not look for results: ${messageOf(error)}`)
    }
    this.#polling = false
    this.#expire()
    if (this.#followers.size > 0) this.#arm(this.#heard.size > 0 ? 0 : this.#waitMs)
  }

  async #askHeard(): Promise<void> {
    const ids = [...this.#heard].slice(0, idsMax)
    for (const id of ids) this.#heard.delete(id)
    await this.#ask(ids, ids)
  }

  async #askAll(): Promise<void> {
    this.#waitMs = Math.min(this.#waitMs * 1.3, slowestMs)
    const ids = this.#nextIds()
    const everything = ++this.#polls % absentEvery === 0
    const watched = ids.filter((id) => everything || this.#isWatched(id))
    await this.#ask(ids, watched)
  }

  /** `standing` are those whose absence is told, and of which also the unfinished are read. */
  async #ask(ids: readonly string[], standing: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    const rows = await this.#runtime.db.control.run(pollJobs, [ids, standing])
    const seen = new Set(rows.map(({ id }) => id))
    for (const row of rows) this.#tell(row)
    for (const id of standing) {
      if (seen.has(id)) continue
      for (const follower of this.#of(id)) if (follower.miss()) this.unfollow(follower)
    }
  }

  #tell(row: PolledRow): void {
    for (const follower of this.#of(row.id)) {
      if (row.state < firstFinal && !follower.watches) continue
      if (follower.hear(row)) this.#waitMs = Math.min(this.#waitMs, livelyMs)
      if (row.state >= firstFinal) this.unfollow(follower)
    }
  }

  #nextIds(): string[] {
    const all = [...this.#followers.keys()]
    if (this.#offset >= all.length) this.#offset = 0
    const ids = all.slice(this.#offset, this.#offset + idsMax)
    this.#offset += idsMax
    return ids
  }

  #expire(): void {
    const now = this.#runtime.clock.monotonicMs()
    for (const follower of this.#all()) {
      if (follower.untilMs > now) continue
      follower.expire()
      this.unfollow(follower)
    }
  }
}

interface Waiter {
  readonly id: string
  readonly untilMs: number
  /** False: it was made in a transaction that may not have committed; then "not there" means nothing. */
  readonly committed: boolean
  readonly resolve: (value: unknown) => void
  readonly reject: (error: ForgeError) => void
}

function waiterOf({ id, untilMs, committed, resolve, reject }: Waiter): Follower {
  return {
    id,
    untilMs,
    watches: false,
    hear(row) {
      settle(row, resolve, reject)
      return false
    },
    miss() {
      if (committed) reject(new ForgeError('FORGE_RESULT_NOT_KEPT', `Job ${id}.`))
      return committed
    },
    expire() {
      const hint = committed ? '' : 'It was enqueued in a transaction that may not have committed.'
      reject(new ForgeError('FORGE_RESULT_TIMEOUT', `Job ${id}. ${hint}`.trim()))
    },
    fail: reject,
  }
}

function settle(row: PolledRow, resolve: Waiter['resolve'], reject: Waiter['reject']): void {
  const state = stateName(row.state)
  const about = `Job ${row.id}${row.reason ? `: ${row.reason}` : ''}.`
  if (state === 'completed') {
    if (row.result_too_large) reject(new ForgeError('FORGE_RESULT_TOO_LARGE', about))
    else resolve(row.result)
  } else {
    const code = { cancelled: 'FORGE_JOB_CANCELLED', quarantined: 'FORGE_JOB_QUARANTINED' } as const
    const own = code[state as keyof typeof code] ?? 'FORGE_JOB_DISCARDED'
    reject(new ForgeError(own, about, { cause: row.error ?? undefined }))
  }
}
