import type { Membership } from '../cluster/index.js'
import type { Session } from '../database/index.js'
import { isConnectionError, isForgeError, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Claims } from './claims.js'
import type { Finisher } from './complete.js'
import type { Frontier, Plan } from './frontier.js'
import type { Found } from './lane-state.js'
import { batchMax, type Pace } from './pace.js'
import type { Shelf } from './shelf.js'
import type { Slots } from './slots.js'
import { alike, type Brought, type Completed, trip } from './trip.js'

export interface PumpParts {
  readonly runtime: Runtime
  readonly membership: Membership
  /** For trips that claim, and for hand-ins beside a claim. */
  readonly session: Session
  readonly handInSession: Session
  readonly frontier: Frontier
  readonly slots: Slots
  readonly shelf: Shelf
  readonly pace: Pace
  readonly claims: Claims
  readonly finisher: Pick<Finisher, 'backlog'>
  /** Claimed under this epoch. */
  claimed(brought: Brought, epoch: string): void
  /** Durable. */
  completed(done: Completed): void
  /** Not accepted, or (`doubted`) not known to be. */
  refused(done: Completed, doubted: boolean): void
  /** Nothing is under way and nothing is wanted. */
  rested(): void
}

interface Want {
  readonly queue: string
  readonly n: number
  readonly weight: number
}

/** While jobs are at hand, completions wait for a neighbour: so many, or so long. */
const handInMin = 250
const handInMsMax = 10
const handInMax = 1_000
/** With so many ends not yet written nothing more is claimed. */
const waitingMax = 2 * handInMax
/** Failed trips in a row are spaced out up to this. */
const pauseMsMax = 2_000
const claiming = 'the claim of jobs'
const handingIn = 'the hand-in of completed jobs'

/**
 * Keeps trips to PostgreSQL going: while handlers run on what is at hand, the next batch is fetched and the ends of the
 * last one are written. At low load one trip does both; under load they go side by side on two connections. A wake-up
 * during a claim leads to one more, never to a second beside it, so that a storm of hints costs one claim per round trip
 * at most.
 */
export class Pump {
  readonly #parts: PumpParts
  #done: Completed[] = []
  #oldestMs = 0
  #claiming: Promise<void> | null = null
  #handing: Promise<void> | null = null
  #scheduled = false
  #timer: Timer | null = null
  #failures = 0
  #notBeforeMs = 0
  #claims = true

  constructor(parts: PumpParts) {
    this.#parts = parts
  }

  complete(done: Completed): void {
    if (this.#done.push(done) === 1) this.#oldestMs = this.#parts.runtime.clock.monotonicMs()
    this.schedule()
  }

  /** Looks soon whether a trip is due: after what ends in this turn of the event loop, so that it goes along. */
  schedule(): void {
    if (this.#scheduled || (this.#claiming && this.#handing)) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#turn()
    })
  }

  /** From here on trips only hand in. Resolves when the trip under way is over. */
  async quiesce(): Promise<void> {
    this.#claims = false
    await this.#claiming
  }

  /** Gives up what was not handed in. */
  abandon(): readonly Completed[] {
    this.#timer?.cancel()
    return this.#done.splice(0)
  }

  #turn(): void {
    const now = this.#parts.runtime.clock.monotonicMs()
    const wanted = this.#claiming ? [] : this.#wanted(now)
    const done = this.#handIn(now, wanted.length > 0)
    if (wanted.length === 0 && done.length === 0) return this.#rest(now)
    this.#timer?.cancel()
    // A few go along with the claim; many would keep it waiting.
    const together = wanted.length > 0 && done.length < handInMin
    if (wanted.length > 0) this.#claiming = this.#claim(together ? done : [], wanted)
    if (done.length > 0 && !together) {
      this.#handing = this.#go(done, []).then(() => {
        this.#handing = null
        this.schedule()
      })
    }
  }

  #rest(now: number): void {
    const pause = this.#notBeforeMs > now ? this.#notBeforeMs - now : Number.POSITIVE_INFINITY
    const waits = this.#done.length > 0 && !this.#handing
    const handIn = waits ? this.#oldestMs + handInMsMax - now : Number.POSITIVE_INFINITY
    const ms = Math.min(pause, handIn, this.#claims ? this.#parts.frontier.sweepInMs(now) : pause)
    this.#timer?.cancel()
    if (ms < Number.POSITIVE_INFINITY)
      this.#timer = this.#parts.runtime.clock.timer(ms, () => this.schedule())
    this.#parts.rested()
  }

  #handIn(now: number, goesAnyway: boolean): Completed[] {
    if (this.#handing || this.#done.length === 0) return []
    const enough = this.#done.length >= handInMin || now - this.#oldestMs >= handInMsMax
    if (!goesAnyway && !enough && !this.#parts.shelf.empty) return []
    this.#oldestMs = now
    // Those that cost least go by themselves, when they are enough for a trip.
    const alone = alike(this.#done)
    return this.#done.splice(0, alone >= handInMin ? Math.min(alone, handInMax) : handInMax)
  }

  /** What each hungry queue takes: its free slots and what it runs through soon, in shares by weight if it is too much. */
  #wanted(now: number): Plan[] {
    const { membership, frontier } = this.#parts
    frontier.sweep(now)
    if (!this.#claims || !membership.trusted || now < this.#notBeforeMs) return []
    // What is finished must not pile up behind a server that is slow to take it, or has no room for it.
    if (this.#done.length + this.#parts.finisher.backlog >= waitingMax) return []
    const wants = [...frontier.hungry()].map((queue) => this.#want(queue)).filter(({ n }) => n > 0)
    return share(wants).map(({ queue, n }) => frontier.plan(queue, n, now))
  }

  #want(queue: string): Want {
    const { slots, shelf, pace } = this.#parts
    const ahead = pace.ahead(queue, slots.size(queue))
    const stock = shelf.count(queue)
    const room = slots.free(queue) + ahead - stock
    // Half of it is still at hand: the next claim is worth more when there is room for a whole one.
    const n = slots.isPaused(queue) || stock * 2 > ahead ? 0 : Math.min(room, batchMax)
    return { queue, n, weight: slots.weight(queue) }
  }

  async #claim(done: readonly Completed[], wanted: readonly Plan[]): Promise<void> {
    const { epoch } = this.#parts.membership
    const brought = await this.#go(done, wanted)
    this.#claiming = null
    if (brought) this.#parts.claimed(brought, epoch)
    this.schedule()
  }

  /**
   * Jobs are at hand that have not started: what is to be claimed or handed in now goes out before them, since trivial
   * handlers run through all of them in one turn of the event loop.
   */
  stocked(): void {
    this.#turn()
  }

  /** Null when the trip failed. */
  async #go(done: readonly Completed[], wanted: readonly Plan[]): Promise<Brought | null> {
    const { runtime, membership, session, handInSession, frontier, claims } = this.#parts
    const started = runtime.clock.monotonicMs()
    const spent = done.length > 0 ? claims.takeSpent() : []
    let brought: Brought
    try {
      brought = await trip(wanted.length > 0 ? session : handInSession, membership, { done, wanted, spent })
    } catch (error) {
      for (const { readings } of wanted) frontier.unread(readings)
      claims.giveSpent(spent)
      this.#fail(error, done, wanted.length > 0)
      return null
    }
    this.#failures = 0
    runtime.faults.passed(wanted.length > 0 ? claiming : handingIn)
    if (wanted.length > 0) frontier.took(runtime.clock.monotonicMs() - started, wanted)
    for (const item of done) {
      if (brought.missed.has(item.run.id)) this.#parts.refused(item, false)
      else this.#parts.completed(item)
    }
    this.#note(wanted, brought)
    return brought
  }

  #note(wanted: readonly Plan[], { rows, lasts, nexts, inputBytes }: Brought): void {
    const { frontier, pace, slots } = this.#parts
    const taken = new Map<number, number>()
    for (const { lane } of rows) taken.set(lane, (taken.get(lane) ?? 0) + 1)
    for (const plan of wanted) {
      const found = plan.readings.map(({ lane: { id } }): [number, Omit<Found, 'cut'>] => {
        return [id, { took: taken.get(id) ?? 0, last: lasts.get(id) ?? null, next: nexts.get(id) ?? null }]
      })
      frontier.read(plan, new Map(found))
      const got = found.reduce((sum, [, { took }]) => sum + took, 0)
      if (got > 0) pace.weigh(plan.queue, inputBytes)
      // One of several lanes may turn out shorter than it was.
      if (got * 2 >= plan.n) pace.grow(plan.queue, slots.size(plan.queue))
    }
  }

  #fail(error: unknown, done: readonly Completed[], claims: boolean): void {
    const { clock, faults } = this.#parts.runtime
    faults.failed(claims ? claiming : handingIn, error)
    const doubted = isConnectionError(error) || isForgeError(error, 'FORGE_COMMIT_UNKNOWN')
    // What this statement could not write is written one by one: it must not keep the others, or claims, waiting.
    for (const item of done) this.#parts.refused(item, doubted)
    if (done.length === 0 || doubted)
      this.#notBeforeMs = clock.monotonicMs() + Math.min(100 * 2 ** this.#failures++, pauseMsMax)
  }
}

/** One trip brings `batchMax` jobs: if more is wanted, each queue gets its share by weight, and one job at least. */
function share(wants: readonly Want[]): readonly Want[] {
  const total = wants.reduce((sum, { n }) => sum + n, 0)
  if (total <= batchMax) return wants
  const weights = wants.reduce((sum, { weight }) => sum + weight, 0)
  return wants.map((want) => ({
    ...want,
    n: Math.max(1, Math.min(want.n, Math.floor((batchMax * want.weight) / weights))),
  }))
}
