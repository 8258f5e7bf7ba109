import type { Database } from '../runtime/index.js'
import { findLanes, type LaneKey, lanesOfNames, makeLanes } from './queries/enqueue.js'

/** Names and capabilities hold no spaces. */
const keyOf = (lane: LaneKey): string => `${lane.queue} ${lane.name} ${lane.version} ${lane.capability}`

/**
 * The numbers of lanes. They are made on forge's own connection, never inside a caller's transaction, which may roll
 * back; rows of the catalogue are never deleted, so a number once seen is good for ever.
 */
export class Lanes {
  readonly #db: Database
  readonly #known = new Map<string, number>()

  constructor(db: Database) {
    this.#db = db
  }

  /** The number of a lane that was resolved before. */
  known(lane: LaneKey): number | undefined {
    return this.#known.get(keyOf(lane))
  }

  /** True when a lane was made: other nodes should look for it. */
  async resolve(lanes: readonly LaneKey[]): Promise<boolean> {
    const missing = lanes.filter((lane) => this.known(lane) === undefined)
    if (missing.length === 0) return false
    const arrays = [
      missing.map((lane) => lane.queue),
      missing.map((lane) => lane.name),
      missing.map((lane) => lane.version),
      missing.map((lane) => lane.capability),
    ]
    let found = await this.#db.control.run(findLanes, arrays)
    const make = found.length < missing.length
    if (make) {
      await this.#db.control.run(makeLanes, arrays)
      found = await this.#db.control.run(findLanes, arrays)
    }
    for (const lane of found) this.#known.set(keyOf(lane), lane.id)
    return make
  }

  /** All lanes of these job names, those of other queues included. */
  ofNames(names: readonly string[]): Promise<readonly ({ id: number } & LaneKey)[]> {
    return this.#db.control.run(lanesOfNames, [names])
  }
}
