import { type Timer } from '../kernel/index.js'
import type { Membership } from '../cluster/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import { hintReady, parseReady } from './hints.js'
import { lookAround, type Seen } from './queries/look.js'
import { promoteDue } from './queries/limits.js'
import type { StoredQueues } from './queues.js'
import type { Upkeep } from './upkeep.js'
import type { Worker } from './worker.js'

export interface LooksParts {
  readonly runtime: Runtime
  readonly membership: Membership
  readonly upkeep: Upkeep
  readonly admission: Admission
  readonly queues: StoredQueues
  readonly worker: Worker | null
}

const provenPollMs = 5_000
const blindPollMs = 1_000
const foreignMax = 10_000

/** Looks at the tables now and then, when a waiting job is due, and when a hint says so: whatever it finds, it would also find without hints. */
export class Looks {
  readonly #parts: LooksParts
  #poll: Timer | null = null
  #due: Timer | null = null
  #dueAt = Number.POSITIVE_INFINITY
  #looking: Promise<void> | null = null
  #lookAgain = false
  /** How many lanes the last look saw: when it rises, a lane may have come up that this process can serve. */
  #lanesSeen = -1
  #stopped = false
  /** Lanes that were announced and are not served here: they cost no second look. */
  readonly #foreign = new Set<number>()

  constructor(parts: LooksParts) {
    this.#parts = parts
  }

  /** No timer fires any more; resolves when the look under way is over. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#poll?.cancel()
    this.#due?.cancel()
    await this.#looking
  }

  /** One look and what follows from it. A call during one leads to one more. */
  tick(): Promise<void> {
    if (this.#looking) {
      this.#lookAgain = true
      return this.#looking
    }
    this.#looking = this.#look()
      .catch((error: unknown) => this.#parts.runtime.faults.failed('a look', error))
      .then(() => {
        this.#looking = null
        this.#armPoll()
        if (!this.#lookAgain || this.#stopped) return
        this.#lookAgain = false
        return this.tick()
      })
    return this.#looking
  }

  #look(): Promise<void> {
    const { upkeep, queues, worker, runtime } = this.#parts
    return upkeep.round(async () => {
      if (!worker) return queues.refresh()
      const seen = await this.#lookAround(worker)
      if (!seen) return false
      const anyoneWaits = queues.heed(seen)
      // Whoever waits at a gate must not wait for this too.
      await runtime.faults.attempt('what follows a look', () => this.#follow(seen, worker))
      return anyoneWaits
    })
  }

  async #follow(seen: Seen, worker: Worker): Promise<void> {
    if (seen.lanes !== this.#lanesSeen || !worker.announced) await this.refresh()
    this.#lanesSeen = seen.lanes
    if (seen.cancelled) worker.runner.cancel(seen.cancelled)
    if (seen.strays) await worker.releaseStrays(seen.strays)
    if (seen.ready) worker.wake(seen.ready)
    if (seen.suspects) await worker.claimSuspect()
    if (seen.next_ms !== null) this.armDue(seen.next_ms)
  }

  async #lookAround({ claims, runner, laneIds }: Worker): Promise<Seen | undefined> {
    const { runtime, membership } = this.#parts
    const known = claims.tokens
    const spent = claims.takeSpent()
    try {
      const values = [laneIds, runner.ids, membership.epoch, known, spent, runtime.nodeId]
      return (await runtime.db.control.run(lookAround, values))[0]
    } catch (error) {
      claims.giveSpent(spent)
      throw error
    }
  }

  #armPoll(): void {
    if (this.#stopped) return
    const { clock, signals } = this.#parts.runtime
    this.#poll?.cancel()
    this.#poll = clock.timer(signals.proven ? provenPollMs : blindPollMs, () => void this.tick())
  }

  /** Wakes up when the next waiting job is due; of several moments the earliest counts. */
  armDue(ms: number): void {
    const { clock } = this.#parts.runtime
    const at = clock.monotonicMs() + Math.max(0, ms)
    if (ms > 2 * provenPollMs || this.#stopped || at >= this.#dueAt) return
    this.#due?.cancel()
    this.#dueAt = at
    this.#due = clock.timer(ms, () => void this.#promote())
  }

  /** The time of waiting jobs has come: they become available, and their queues are looked at. */
  async #promote(): Promise<void> {
    this.#dueAt = Number.POSITIVE_INFINITY
    const { runtime, admission } = this.#parts
    const rows = await runtime.faults.attempt('the look for due jobs', () =>
      runtime.db.control.run(promoteDue),
    )
    for (const { lane, due, gates } of rows ?? []) {
      // This node hears it too; the others would find it when they look.
      if (due !== null) hintReady(runtime.signals, { lane, waits: false, due })
      admission.request(gates)
    }
    void this.tick()
  }

  /** The lanes are read again at the next look. */
  forgetLanes(): void {
    this.#lanesSeen = -1
  }

  async refresh(): Promise<void> {
    const { worker } = this.#parts
    await worker?.refreshLanes()
    for (const lane of this.#foreign) if (worker?.frontier.serves(lane)) this.#foreign.delete(lane)
  }

  /** A hint said that something became available; null: anything may have. */
  onReady(keys: readonly string[] | null): void {
    const { worker } = this.#parts
    if (!worker) return
    if (keys === null) return void this.tick()
    for (const key of keys) {
      const ready = parseReady(key)
      if (ready && worker.frontier.serves(ready.lane)) worker.wake([ready.lane], ready.due)
      else if (ready && !this.#foreign.has(ready.lane)) this.#meet(ready.lane)
    }
  }

  /** A lane that this process does not serve, or not yet: a look tells. */
  #meet(lane: number): void {
    if (this.#foreign.size >= foreignMax) this.#foreign.clear()
    this.#foreign.add(lane)
    this.forgetLanes()
    void this.tick()
  }
}
