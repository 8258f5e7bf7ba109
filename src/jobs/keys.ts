import type { Database } from '../runtime/index.js'
import { forgetKeys, walkKeys } from './queries/upkeep.js'

const pageSize = 1_000
/** Pages of one round: a round must stay short, and the next one goes on where it ended. */
const pagesMax = 20

/** Forgets the keys of unique jobs that nothing holds any more. A key in use is never touched. */
export class KeySweep {
  readonly #db: Database
  #after: readonly [string, string] = ['', '']

  constructor(db: Database) {
    this.#db = db
  }

  /** Looks at the next 20,000 keys at most. Answers how many it forgot. */
  async round(): Promise<number> {
    let forgotten = 0
    for (let pages = 0; pages < pagesMax; pages++) {
      const page = await this.#db.control.run(walkKeys, [...this.#after, pageSize])
      const stale = page.filter((row) => row.stale)
      if (stale.length > 0) {
        const arrays = [
          stale.map((row) => row.scope),
          stale.map((row) => row.key),
          stale.map((row) => row.job),
        ]
        forgotten += (await this.#db.control.run(forgetKeys, arrays)).length
      }
      const last = page.at(-1)
      this.#after = last && page.length === pageSize ? [last.scope, last.key] : ['', '']
      if (page.length < pageSize) break
    }
    return forgotten
  }
}
