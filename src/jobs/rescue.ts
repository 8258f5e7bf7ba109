import { messageOf } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { topics } from './hints.js'
import { crashesMax, type Keep } from './job.js'
import { quarantineJobs, rescueJobs } from './queries/upkeep.js'

/**
 * Takes back the jobs of dead leases. Any node does it, no leader is needed: the statement is guarded and skips what
 * another node has locked. Called after each pulse that saw a death within the last minute, and now and then anyway.
 */
export class Rescue {
  readonly #runtime: Runtime
  readonly #keep: Keep
  #busy: Promise<void> | null = null

  constructor(runtime: Runtime, keep: Keep) {
    this.#runtime = runtime
    this.#keep = keep
  }

  /** Resolves when this sweep is done; a call during one joins it. */
  sweep(): Promise<void> {
    return (this.#busy ??= this.#sweep().finally(() => (this.#busy = null)))
  }

  async #sweep(): Promise<void> {
    try {
      const { control } = this.#runtime.db
      const keepMs = Math.max(this.#keep.discardedMs, 86_400_000)
      const poison = await control.run(quarantineJobs, [crashesMax, keepMs])
      const rows = await control.run(rescueJobs, [crashesMax])
      if (poison.length > 0)
        this.#runtime.log.error(`forge: quarantined ${poison.length} jobs that keep losing their process`)
      if (rows.length === 0) return
      this.#runtime.log.warn(`forge: took back ${rows.length} jobs of nodes that were lost`)
      this.#runtime.signals.hint(topics.later, 'rescue')
    } catch (error) {
      this.#runtime.log.debug(`forge: the sweep for lost jobs failed: ${messageOf(error)}`)
    }
  }
}
