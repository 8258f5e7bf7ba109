import { checkTx, type Tx } from '../database/index.js'
import { encodeForgiving, ForgeError, type Logger, mixIds, storableText } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { finishArrays, keepMs } from './complete.js'
import type { EnqueueOptions } from './enqueue.js'
import type { JobContext, JobHandle } from './face.js'
import type { Keep } from './job.js'
import { resultLimits } from './options.js'
import { cancelled, discarded, snooze } from './outcome.js'
import type { ProgressWriter } from './progress.js'
import { finishJobs, lockClaim } from './queries/finish.js'
import type { JobRun } from './run.js'

export interface ContextParts {
  readonly runtime: Runtime
  readonly keep: Keep
  readonly progress: ProgressWriter
  readonly enqueue: (name: string, input: unknown, options?: EnqueueOptions) => Promise<JobHandle<unknown>>
  readonly transaction: <T>(fn: (tx: Tx) => Promise<T>) => Promise<T>
}

/**
 * The context of one run. Everything is made when it is asked for, since most handlers ask for little; and nothing needs
 * `this`, so that a handler can take it apart.
 */
export class RunContext implements JobContext {
  readonly #run: JobRun
  readonly #parts: ContextParts

  constructor(run: JobRun, parts: ContextParts) {
    this.#run = run
    this.#parts = parts
  }

  get id(): string {
    return this.#run.id
  }

  get name(): string {
    return this.#run.spec.name
  }

  get queue(): string {
    return this.#run.queue
  }

  get attempt(): number {
    return this.#run.row.attempt
  }

  get attempts(): number {
    return this.#run.row.attempts_max
  }

  get signal(): AbortSignal {
    return this.#run.signal
  }

  get deadline(): Date {
    const { clock } = this.#parts.runtime
    return new Date(clock.wallMs() + this.#run.deadlineMs - clock.monotonicMs())
  }

  /** The jobs of one claim share its token: mixed with the id it is this job's alone. */
  get fence(): JobContext['fence'] {
    return { token: mixIds(this.#run.token, this.#run.id), n: this.#run.row.claims }
  }

  get log(): Logger {
    return jobLogger(this.#parts.runtime.log, this.#run)
  }

  get span(): JobContext['span'] {
    return this.#parts.runtime.span(this.#run.spec.name)
  }

  get progress(): JobContext['progress'] {
    return (percent, message) => this.#parts.progress.note(this.#run, percent, message)
  }

  get enqueue(): JobContext['enqueue'] {
    return (job, input, options) =>
      this.#parts.enqueue(job.name, input, causedBy(this.id, options)) as Promise<JobHandle<never>>
  }

  get again(): JobContext['again'] {
    return (input, options) => this.#parts.enqueue(this.#run.spec.name, input, causedBy(this.id, options))
  }

  get transaction(): JobContext['transaction'] {
    return (fn) =>
      this.#parts.transaction(async (tx) => {
        await holdClaim(this.#run, tx, this.#parts.runtime)
        return fn(tx)
      })
  }

  get complete(): JobContext['complete'] {
    return (result, options) => completeIn(this.#run, result, { tx: options?.tx, parts: this.#parts })
  }

  get snooze(): JobContext['snooze'] {
    return snooze
  }

  get cancel(): JobContext['cancel'] {
    return cancelled
  }

  get discard(): JobContext['discard'] {
    return discarded
  }
}

/** What is not an object is left to those who refuse it. */
function causedBy(id: string, options: EnqueueOptions | undefined): EnqueueOptions {
  if (options !== undefined && (typeof options !== 'object' || options === null)) return options
  return { ...options, parent: options?.parent ?? id }
}

/** Locks the job's row for the transaction, so that the lease cannot pass to another node before it ends. */
async function holdClaim(run: JobRun, tx: Tx, runtime: Runtime): Promise<void> {
  run.heldRow = true
  const { rows } = await tx.query(lockClaim.text(runtime.db.schema), [run.id, run.token])
  if (rows.length > 0) return
  // Completed by this very transaction, or one before it: that is no loss.
  throw run.completedInTx
    ? new ForgeError('FORGE_LEASE_LOST', `Job ${run.id} was completed before.`)
    : loseLease(run)
}

async function completeIn(
  run: JobRun,
  result: unknown,
  given: { tx: unknown; parts: ContextParts },
): Promise<void> {
  const tx = checkTx(given.tx)
  // Waits for whoever has the row; the statement that finishes passes over what is locked.
  await holdClaim(run, tx, given.parts.runtime)
  const { json, tooLarge } = encodeForgiving(result, resultLimits)
  const ms = keepMs(run, 'completed', given.parts.keep)
  const end = {
    run,
    state: 'completed',
    result: json,
    tooLarge,
    error: null,
    reason: null,
    keepMs: ms,
  } as const
  const { rows } = await tx.query(finishJobs.text(given.parts.runtime.db.schema), [
    ...finishArrays([end]),
    false,
  ])
  if (rows.length === 0) throw loseLease(run)
  run.completedInTx = true
}

function loseLease(run: JobRun): ForgeError {
  const error = new ForgeError('FORGE_LEASE_LOST', `Job ${run.id}.`)
  run.abort('lost', error)
  return error
}

function jobLogger(log: Logger, run: JobRun): Logger {
  const about = { job: run.row.id, name: run.spec.name, attempt: run.row.attempt }
  const line =
    (level: keyof Logger) =>
    (message: string, fields?: Readonly<Record<string, unknown>>): void =>
      log[level](storableText(message, 10_000), { ...about, ...fields })
  return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
}
