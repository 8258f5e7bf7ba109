import { oldestTransaction } from '../database/index.js'
import type { Runtime } from '../runtime/index.js'
import { horizonHeld } from './news.js'

/** Longer than this an open transaction is worth a word: what was deleted since it began cannot be cleaned up. */
const heldMsDefault = 5 * 60_000
const againMs = 30 * 60_000

/** Looks for the transaction that has been open longest in this database, and says whose it is. */
export class Watchdog {
  readonly #runtime: Runtime
  readonly #heldMs: number
  #said = { who: '', atMs: 0 }

  constructor(runtime: Runtime, heldMs = heldMsDefault) {
    this.#runtime = runtime
    this.#heldMs = heldMs
  }

  async look(): Promise<void> {
    const { db, clock, log, news } = this.#runtime
    const [held] = await db.control.run(oldestTransaction)
    if (!held || held.age_ms < this.#heldMs) return
    const now = clock.monotonicMs()
    if (this.#said.who === held.who && now - this.#said.atMs < againMs) return
    this.#said = { who: held.who, atMs: now }
    const minutes = Math.floor(held.age_ms / 60_000)
    const query = held.query ? `: ${held.query}` : ''
    log.warn(
      `forge: ${held.who} has had a transaction open for ${minutes} min (${held.state}); what was deleted since cannot be ` +
        `cleaned up, and queues grow slow. End it, or look at what it waits for${query}`,
    )
    news.emit(horizonHeld, { who: held.who, ageMs: held.age_ms, query: held.query })
  }
}
