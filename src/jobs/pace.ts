/** Claimed ahead, jobs wait about so long before they start: a round trip, and no more than others would mind. */
const aheadMs = 25
/** Claimed ahead in a process and queue at most. */
const aheadMax = 2_000
/** Their inputs, as text, take about so much memory at most. */
const aheadBytesMax = 16_000_000
/** Of a larger average before, so much counts on from claim to claim. */
const bytesKept = 0.9
/** Of one claim. The knee is at 50 to 100 jobs; 500 gives 1.3x of that, and 1,000 the last 1.1x. */
export const batchMax = 1_000
/** Weight of the newest duration in the average. */
const share = 0.05

/**
 * How many jobs of a queue are worth claiming ahead: as many as its handlers get through in 25 ms, by the time that
 * handlers took lately, and as their inputs leave room for. So trivial jobs travel 1,000 at a time, and a slow job is not taken from a node that is free.
 * Nothing is claimed ahead before one job was timed, and the number grows fourfold at most from claim to claim.
 */
export class Pace {
  readonly #averageMs = new Map<string, number>()
  /** Of one input. */
  readonly #averageBytes = new Map<string, number>()
  readonly #allowed = new Map<string, number>()
  readonly #stalled = new Set<string>()

  /** One handler of the queue took so long. */
  note(queue: string, ms: number): void {
    const average = this.#averageMs.get(queue)
    this.#stalled.delete(queue)
    this.#averageMs.set(queue, average === undefined ? ms : average + (ms - average) * share)
  }

  /** Jobs to have at hand beside those that run, of which there are `size` at most. */
  ahead(queue: string, size: number): number {
    const average = this.#averageMs.get(queue)
    if (average === undefined || this.#stalled.has(queue)) return 0
    const fit = Math.floor((size * aheadMs) / Math.max(average, 0.001))
    const held = Math.ceil(aheadBytesMax / (this.#averageBytes.get(queue) ?? 1))
    return Math.min(fit, held, aheadMax, this.#allowed.get(queue) ?? size * 4)
  }

  /** A claim that took jobs of the queue brought inputs of so many bytes on average. */
  weigh(queue: string, bytes: number): void {
    this.#averageBytes.set(queue, Math.max(bytes, (this.#averageBytes.get(queue) ?? 0) * bytesKept))
  }

  /** Claimed jobs waited too long: until a handler of the queue ends, none is claimed ahead. */
  stall(queue: string): void {
    this.#stalled.add(queue)
  }

  /** A claim of the queue brought most of what it asked for: the next may ask for more. */
  grow(queue: string, size: number): void {
    this.#allowed.set(queue, Math.min((this.#allowed.get(queue) ?? size * 4) * 4, aheadMax))
  }
}
