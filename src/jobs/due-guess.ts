import type { Clock } from '../kernel/index.js'

/**
 * The due that a job enqueued now will be given by the server, by what it gave the last one of the same priority. Off by
 * as long as a statement takes to be answered, and by what the two clocks have drifted apart since.
 */
export class DueGuess {
  readonly #clock: Clock
  /** By priority: the last due less our clock at the answer, in milliseconds. */
  readonly #distances = new Map<number, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** In seconds since 1970; null: there is no last one. */
  guess(priority: number): number | null {
    const distance = this.#distances.get(priority)
    return distance === undefined ? null : (this.#clock.monotonicMs() + distance) / 1000
  }

  /** Takes what the server gave, in milliseconds; gives it in seconds. */
  heard(priority: number, dueMs: number): number {
    this.#distances.set(priority, dueMs - this.#clock.monotonicMs())
    return dueMs / 1000
  }
}
