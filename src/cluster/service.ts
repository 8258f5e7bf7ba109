import { hostname } from 'node:os'
import {
  type Clock,
  deferred,
  ForgeError,
  invalidOption,
  messageOf,
  randomId,
  type Resolved,
  type Service,
  sleep,
  type Timer,
  within,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Beat, LeaseTimes } from './beater.js'
import type { LeaderPost, LeaderWork } from './campaign.js'
import { checkRole, Leadership } from './leadership.js'
import type { Gauges } from './load.js'
import type { Chore } from './maintenance.js'
import { termTimes } from './leads.js'
import { drainTopic } from './face.js'
import { contactChanged, deathsSeen, drainAsked, leaseLost } from './news.js'
import { type clusterOptions, frozenMsMax, trustShare } from './options.js'
import { Pulse } from './pulse.js'
import { Watchdog } from './watchdog.js'
import {
  forgetDead,
  forgetTerms,
  joinNode,
  leaveNode,
  listNodes,
  markActive,
  markDraining,
  type NodeRow,
} from './queries.js'

const skewMsMax = 2_000

/** The lease of this process as other rooms see it. */
export interface Membership {
  readonly nodeId: string
  /** Random; changes when a lease was lost. Claims carry it. */
  readonly epoch: string
  /** True while this node may claim and its handlers may run. */
  readonly trusted: boolean
  /** Why the pulse runs on the main loop, or null. */
  readonly pulseFallback: string | null
  nodes(): Promise<readonly NodeRow[]>
}

/** Registers this process, keeps its lease, and tells the other rooms what becomes of it. */
export class ClusterService implements Service, Membership {
  readonly name = 'cluster'
  readonly #runtime: Runtime
  readonly #version: string
  readonly #times: LeaseTimes
  readonly #pulse: Pulse
  readonly #leadership: Leadership
  readonly #watchdog: Watchdog
  readonly #abort = new AbortController()
  readonly #first = deferred<void>()
  #epoch = randomId()
  #trusted = false
  #check: Timer | null = null
  #rejoining = false
  #draining = false
  #active = false
  #off: () => void = () => {}
  /** A row of this node may be in the table. */
  #mayStand = false
  /** How far the clock of this machine is off, in words; null: at most 2 s. */
  clockOff: string | null = null

  constructor(runtime: Runtime, options: Resolved<typeof clusterOptions>, version: string) {
    this.#runtime = runtime
    this.#version = version
    this.#times = leaseTimes(options)
    this.#watchdog = new Watchdog(runtime)
    this.#pulse = new Pulse(runtime, this.#times, {
      beat: (seen) => this.#onBeat(seen),
      fault: (message) => {
        runtime.log.debug(`forge: no renewal of the lease: ${message}`)
        this.#leadership.shaken()
      },
    })
    this.#leadership = new Leadership(runtime, this.#times, this.#pulse)
    this.#first.promise.catch(() => {})
  }

  get nodeId(): string {
    return this.#runtime.nodeId
  }

  get epoch(): string {
    return this.#epoch
  }

  get trusted(): boolean {
    return this.#trusted && this.#pulse.trusted
  }

  get draining(): boolean {
    return this.#draining
  }

  /** All services of this node run: it is what it says. */
  async activate(gauges: () => Gauges): Promise<void> {
    this.#pulse.meter.use(gauges)
    this.#active = true
    await this.#runtime.db.control.run(markActive, [this.nodeId, this.#epoch])
    this.#pulse.hurry()
  }

  get pulseFallback(): string | null {
    return this.#pulse.fallback
  }

  /** Resolves after the first renewal, so that the first claim finds a lease. */
  async start(): Promise<void> {
    // Said before: a join whose answer is lost may have happened, and is to be taken back.
    this.#mayStand = true
    await this.#join()
    // Stopped meanwhile: what was joined is taken back by that stop, and nobody would end the pulse.
    this.#abort.signal.throwIfAborted()
    this.#pulse.start(this.#epoch)
    const late = (): Error => new ForgeError('FORGE_DEADLINE', 'The first renewal of the lease did not come.')
    await within(this.#first.promise, { clock: this.#runtime.clock, ms: this.#times.leaseMs + 5_000, late })
    this.#leadership.start()
    this.#off = this.#runtime.signals.subscribe(drainTopic, (ids) => {
      // A word from the network changes nothing by itself: the next renewal says what stands in the table.
      if (ids === null || ids.includes(this.nodeId)) this.#pulse.hurry()
    })
  }

  /** @throws ForgeError FORGE_OPTION_INVALID, FORGE_DUPLICATE_NAME, FORGE_STOPPED */
  whileLeading(role: string, work: LeaderWork): LeaderPost {
    checkRole(role)
    if (typeof work !== 'function') throw invalidOption('The work of whileLeading()', 'must be a function')
    if (this.#draining) throw new ForgeError('FORGE_STOPPED')
    return this.lead(role, work)
  }

  /** The same for roles of forge's own, which a node that drains never leads. @throws ForgeError FORGE_DUPLICATE_NAME, FORGE_STOPPED */
  lead(role: string, work: LeaderWork): LeaderPost {
    if (this.#draining && !this.#abort.signal.aborted) return postOfNobody(role)
    const campaign = this.#leadership.whileLeading(role, work)
    const stop = (): Promise<void> => campaign.end()
    return {
      role,
      get term() {
        return campaign.term
      },
      stop,
      [Symbol.asyncDispose]: stop,
    }
  }

  /** Leads nothing more, and says so. */
  async drain(): Promise<void> {
    this.#draining = true
    await this.#leadership.stop()
    if (!this.#mayStand) return
    await this.#runtime.db.control.run(markDraining, [this.nodeId, this.#epoch]).catch(() => {})
  }

  async stop(): Promise<void> {
    this.#abort.abort(new ForgeError('FORGE_STOPPED'))
    // A start that waits for the first renewal need not wait any longer.
    this.#first.reject(new ForgeError('FORGE_STOPPED'))
    this.#check?.cancel()
    this.#off()
    await this.#leadership.stop()
    if (!this.#mayStand) return
    this.#mayStand = false
    await this.#pulse.stop()
    this.#trusted = false
    await this.#runtime.db.control.run(leaveNode, [this.nodeId, this.#epoch]).catch(() => {})
  }

  /** What the maintenance leader does of this room. */
  get chores(): readonly Chore[] {
    const { control } = this.#runtime.db
    return [
      { name: 'nodes', everyMs: 600_000, work: () => control.run(forgetDead) },
      { name: 'terms', everyMs: 3_600_000, work: () => control.run(forgetTerms) },
      { name: 'watchdog', everyMs: 60_000, work: () => this.#watchdog.look() },
    ]
  }

  nodes(): Promise<readonly NodeRow[]> {
    return this.#runtime.db.reader.run(listNodes)
  }

  async #join(): Promise<void> {
    const { config, db } = this.#runtime
    const { roles, capabilities } = config
    const values = [this.nodeId, this.#epoch, hostname(), process.pid, this.#version, roles, capabilities]
    const state = this.#draining ? 'draining' : this.#active ? 'active' : 'joining'
    await db.control.run(joinNode, [...values, this.#times.leaseMs, state])
  }

  #onBeat(seen: Beat): void {
    const { news } = this.#runtime
    if (seen.epoch !== this.#epoch) return
    if (!seen.renewed) return void this.#rejoin(seen.epoch)
    this.#first.resolve()
    this.#changeTrust(this.#pulse.trusted)
    this.#armCheck()
    this.#noteClock(seen)
    this.#leadership.heard(seen)
    if (seen.draining) this.#heedDrain()
    if (seen.deaths || seen.expired > 0) news.emit(deathsSeen, { expired: seen.expired })
  }

  /** Leases and due times go by the clock of the database; people and logs go by this one. */
  #noteClock({ wallMs, sentAtMs, tookMs }: Beat): void {
    const { clock, log } = this.#runtime
    const here = clock.wallMs() - (clock.monotonicMs() - sentAtMs - tookMs / 2)
    const [aheadMs, wasOff] = [wallMs - here, this.clockOff !== null]
    this.#pulse.meter.clockMs = aheadMs
    const off = Math.abs(aheadMs) - tookMs / 2 > skewMsMax
    this.clockOff = off
      ? `${(Math.abs(aheadMs) / 1_000).toFixed(1)} s ${aheadMs > 0 ? 'behind' : 'ahead of'}`
      : null
    if (off && !wasOff)
      log.warn(
        `forge: the clock of ${hostname()} is ${this.clockOff ?? ''} that of the database; leases and due times go by the latter`,
      )
  }

  #heedDrain(): void {
    if (this.#draining || this.#abort.signal.aborted) return
    this.#draining = true
    this.#runtime.log.info('forge: this node was asked to take nothing new')
    void this.#leadership.stop()
    this.#runtime.news.emit(drainAsked, {})
  }

  /** Looks again at the moment when trust ends, unless a renewal comes first and moves it. */
  #armCheck(): void {
    const { clock } = this.#runtime
    this.#check?.cancel()
    this.#check = clock.timer(this.#pulse.trustedUntilMs - clock.monotonicMs() + 1, () => {
      this.#changeTrust(this.#pulse.trusted)
      if (this.#pulse.trusted) this.#armCheck()
    })
  }

  #changeTrust(trusted: boolean): void {
    if (trusted === this.#trusted) return
    this.#trusted = trusted
    if (!trusted) this.#runtime.log.warn('forge: lost contact with PostgreSQL; running handlers are aborted')
    this.#runtime.news.emit(contactChanged, { trusted })
  }

  /** Declared dead: what ran here belongs to others. A new epoch makes this a new node for every guard. */
  async #rejoin(lost: string): Promise<void> {
    if (this.#rejoining) return
    this.#rejoining = true
    this.#epoch = randomId()
    this.#changeTrust(false)
    this.#leadership.loseAll('the lease of this node was declared dead')
    this.#runtime.log.warn('forge: the lease of this node was declared dead; it rejoins under a new epoch')
    this.#runtime.news.emit(leaseLost, { epoch: lost })
    await this.#joinAgain(this.#runtime.clock)
    this.#rejoining = false
    if (!this.#abort.signal.aborted) this.#pulse.changeEpoch(this.#epoch)
  }

  async #joinAgain(clock: Clock): Promise<void> {
    while (!this.#abort.signal.aborted) {
      try {
        return await this.#join()
      } catch (error) {
        this.#runtime.log.debug(`forge: could not rejoin yet: ${messageOf(error)}`)
        await sleep(clock, 500, this.#abort.signal)
      }
    }
  }
}

function postOfNobody(role: string): LeaderPost {
  const stop = (): Promise<void> => Promise.resolve()
  return { role, term: null, stop, [Symbol.asyncDispose]: stop }
}

function leaseTimes(options: Resolved<typeof clusterOptions>): LeaseTimes {
  const { ms, renewMs } = options.lease
  if (renewMs * 3 > ms)
    throw invalidOption('Option lease.renewMs', `must be at most a third of lease.ms (${ms} ms)`)
  const trustMs = Math.floor(ms * trustShare)
  return { leaseMs: ms, renewMs, trustMs, frozenMs: frozenMsMax, ...termTimes(ms, renewMs) }
}
