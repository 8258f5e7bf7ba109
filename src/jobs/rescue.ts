import type { Statement } from '../database/index.js'
import type { Runtime } from '../runtime/index.js'
import type { JobSpec } from './define.js'
import { topics } from './hints.js'
import { crashesMax, type Keep } from './job.js'
import { forgetClaims, quarantineJobs, rescueJobs } from './queries/upkeep.js'

const dayMs = 86_400_000

/**
 * Takes back the jobs of dead leases. Any node does it, no leader is needed: the statement is guarded and skips what
 * another node has locked. Called after each pulse that saw a death within the last minute, and now and then anyway.
 */
export class Rescue {
  readonly #runtime: Runtime
  readonly #keep: Keep
  readonly #specs: () => readonly JobSpec[]
  #busy: Promise<void> | null = null

  /** `keep` is for jobs of which `specs` say nothing: any node takes back the jobs of all. */
  constructor(runtime: Runtime, keep: Keep, specs: () => readonly JobSpec[]) {
    this.#runtime = runtime
    this.#keep = keep
    this.#specs = specs
  }

  /** Resolves when this sweep is done; a call during one joins it. */
  sweep(): Promise<void> {
    return (this.#busy ??= this.#sweep().finally(() => (this.#busy = null)))
  }

  async #sweep(): Promise<void> {
    const rescued = await this.#run('taking back the jobs of lost nodes', rescueJobs, [crashesMax])
    if (rescued > 0) {
      this.#runtime.log.warn(`forge: took back ${rescued} jobs of nodes that were lost`)
      this.#runtime.signals.hint(topics.later, 'rescue')
    }
    const poison = await this.#run('setting poison jobs aside', quarantineJobs, [
      crashesMax,
      ...this.#quarantineKeeps(),
    ])
    if (poison > 0)
      this.#runtime.log.error(`forge: quarantined ${poison} jobs that keep losing their process`)
    await this.#run('forgetting claims', forgetClaims, [])
  }

  /** In ms: of all jobs; then the names that say otherwise, and what they say. A day at least: somebody must see it. */
  #quarantineKeeps(): [ofAll: number, names: string[], keeps: number[]] {
    const ms = (keepMs: number): number => Math.max(keepMs, dayMs)
    const own = this.#specs().flatMap(({ name, keep: { discardedMs } }) =>
      discardedMs === undefined ? [] : [{ name, keepMs: ms(discardedMs) }],
    )
    return [ms(this.#keep.discardedMs), own.map(({ name }) => name), own.map(({ keepMs }) => keepMs)]
  }

  /** Each half by itself: a job that cannot be set aside must not keep others from being taken back. */
  async #run(what: string, statement: Statement<unknown>, values: readonly unknown[]): Promise<number> {
    const { db, faults } = this.#runtime
    const rows = await faults.attempt(what, () => db.control.run(statement, values))
    return rows?.length ?? 0
  }
}
