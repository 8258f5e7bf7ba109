import type { Database } from '../runtime/index.js'
import type { JobSpec } from './define.js'
import type { Keep } from './job.js'
import { ensurePartitions, foldTally, prunePartition } from './queries/upkeep.js'

const dayMs = 86_400_000
/** Partitions stand ready so many days before they are needed. */
const aheadDays = 7
/** Dropped in one round at most: a round must stay short. */
const dropsMax = 10

/** Partitions of history and the tally: made ahead, dropped when their day is over. Only through narrow functions. */
export class Retention {
  readonly #db: Database
  readonly #keep: Keep
  readonly #specs: () => readonly JobSpec[]

  constructor(db: Database, keep: Keep, specs: () => readonly JobSpec[]) {
    this.#db = db
    this.#keep = keep
    this.#specs = specs
  }

  /** Makes what is missing for every keep in use, from today on. */
  async ensure(): Promise<void> {
    await this.#db.control.run(ensurePartitions, [this.#keepDays(), aheadDays])
  }

  /** Drops the partitions whose day is over. Each drop is its own short transaction. */
  async prune(): Promise<number> {
    let dropped = 0
    while (dropped < dropsMax) {
      const [row] = await this.#db.control.run(prunePartition)
      if (!row?.dropped) break
      dropped += 1
    }
    return dropped
  }

  async fold(): Promise<void> {
    await this.#db.control.run(foldTally)
  }

  #keepDays(): number[] {
    const own = this.#specs().flatMap(({ keep }) => [keep.completedMs, keep.discardedMs])
    return keepDays([...own, this.#keep.completedMs, this.#keep.discardedMs])
  }
}

/** The whole days of these keeps, in milliseconds: each needs partitions of its own. */
export function keepDays(keepsMs: readonly (number | undefined)[]): number[] {
  // Quarantine is kept for a day at least, whatever the retention says.
  const kept = [...keepsMs, dayMs].filter((ms) => ms !== undefined && ms > 0)
  return [...new Set(kept.map((ms) => Math.floor((ms as number) / dayMs)))]
}
