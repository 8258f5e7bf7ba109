import { ForgeError, messageOf, storableText, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { currentClaims, saveProgress } from './queries/finish.js'
import type { JobRun } from './run.js'

const everyMs = 500

interface Pending {
  json: string
  lastMs: number
  timer: Timer | null
}

/**
 * Writes progress at most twice a second per job: the first note at once, then the newest of each half second. A
 * write that is refused tells that the lease is lost, and the handler's signal says so.
 */
export class ProgressWriter {
  readonly #runtime: Runtime
  readonly #pending = new Map<JobRun, Pending>()

  constructor(runtime: Runtime) {
    this.#runtime = runtime
  }

  note(run: JobRun, percent: number, message?: string): void {
    if (run.concluded) return
    const { clock } = this.#runtime
    const clean = Math.min(100, Math.max(0, Number.isFinite(percent) ? percent : 0))
    const json = JSON.stringify({
      percent: clean,
      ...(message ? { message: storableText(message, 500) } : {}),
    })
    const pending = this.#pending.get(run) ?? { json, lastMs: -Infinity, timer: null }
    pending.json = json
    this.#pending.set(run, pending)
    pending.timer ??= clock.timer(
      pending.lastMs + everyMs - clock.monotonicMs(),
      () => void this.#write(run, pending),
    )
  }

  /** The job is done: what was not written yet is of no interest. */
  forget(run: JobRun): void {
    if (this.#pending.size === 0) return
    this.#pending.get(run)?.timer?.cancel()
    this.#pending.delete(run)
  }

  /** Nothing was written: its row is locked, by its own transaction perhaps, or the claim is no longer the current one. */
  async #judge(run: JobRun): Promise<void> {
    const current = await this.#runtime.db.control.run(currentClaims, [[run.id], [run.token]])
    if (current.length > 0 || !this.#pending.has(run) || run.completedInTx) return
    run.abort('lost', new ForgeError('FORGE_LEASE_LOST', `Job ${run.id}.`))
  }

  async #write(run: JobRun, pending: Pending): Promise<void> {
    pending.timer = null
    pending.lastMs = this.#runtime.clock.monotonicMs()
    try {
      const rows = await this.#runtime.db.control.run(saveProgress, [run.id, run.token, pending.json])
      if (rows[0]) Object.assign(run, { tid: rows[0].tid, stamp: null })
      else await this.#judge(run)
    } catch (error) {
      this.#runtime.log.debug(`forge: progress of ${run.id} not written: ${messageOf(error)}`)
    }
  }
}
