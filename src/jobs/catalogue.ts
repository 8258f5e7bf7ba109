import type { Database } from '../runtime/index.js'
import type { JobSpec } from './define.js'
import { type DefinitionRow, saveDefinitions } from './queries/enqueue.js'

/**
 * The definitions of this process in the database, for those who enqueue without them: SQL, triggers, other languages.
 * Written at attach and when a definition is added, where the catalogue says something else.
 */
export class Catalogue {
  readonly #db: Database
  readonly #specs: () => readonly JobSpec[]
  #written = new Set<JobSpec>()

  constructor(db: Database, specs: () => readonly JobSpec[]) {
    this.#db = db
    this.#specs = specs
  }

  /** Asks nothing of the database when nothing is new. */
  async write(): Promise<void> {
    const specs = this.#specs()
    const rows = specs.filter((spec) => !this.#written.has(spec)).map(rowOf)
    if (rows.length === 0) return
    await this.#db.control.run(saveDefinitions, [JSON.stringify(rows)])
    this.#written = new Set(specs)
  }
}

function rowOf(spec: JobSpec): DefinitionRow {
  const { limits, unique } = spec
  return {
    name: spec.name,
    version: 1,
    queue: spec.queue,
    priority: spec.priority,
    attempts: spec.retry.attempts,
    capability: spec.capability,
    unique_mode: unique?.mode ?? null,
    unique_keyed: Boolean(unique?.by),
    unique_for_ms: unique?.windowMs ?? null,
    unique_max_wait_ms: unique?.maxWaitMs ?? null,
    concurrency_limit: limits.concurrency?.limit ?? null,
    concurrency_keyed: limits.concurrency?.keyed ?? false,
    rate_limit: limits.rate?.limit ?? null,
    rate_per_ms: limits.rate?.perMs ?? null,
    rate_keyed: limits.rate?.keyed ?? false,
  }
}
