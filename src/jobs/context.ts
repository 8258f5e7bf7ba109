import { checkTx, type Tx } from '../database/index.js'
import { encodeForgiving, ForgeError, type Logger, storableText } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { finishArrays, keepMs } from './complete.js'
import type { EnqueueOptions } from './enqueue.js'
import type { JobContext, JobHandle } from './face.js'
import type { Keep } from './job.js'
import { resultLimits } from './options.js'
import { cancelled, discarded, snooze } from './outcome.js'
import type { ProgressWriter } from './progress.js'
import { finishJobs, lockClaim } from './queries/finish.js'
import { abortRun, type JobRun } from './run.js'

export interface ContextParts {
  readonly runtime: Runtime
  readonly keep: Keep
  readonly progress: ProgressWriter
  readonly enqueue: (name: string, input: unknown, options?: EnqueueOptions) => Promise<JobHandle<unknown>>
  readonly transaction: <T>(fn: (tx: Tx) => Promise<T>) => Promise<T>
}

/** The context of one run. A plain object, so that a handler can destructure it. */
export function createContext(run: JobRun, parts: ContextParts): JobContext {
  const { row, spec } = run
  const { clock } = parts.runtime
  return {
    id: row.id,
    name: spec.name,
    queue: run.queue,
    attempt: row.attempt,
    attempts: row.attempts_max,
    signal: run.controller.signal,
    deadline: new Date(clock.wallMs() + run.deadlineMs - clock.monotonicMs()),
    fence: { token: row.token, n: row.claims },
    log: jobLogger(parts.runtime.log, run),
    span: parts.runtime.span(spec.name),
    progress: (percent, message) => parts.progress.note(run, percent, message),
    enqueue: (job, input, options) =>
      parts.enqueue(job.name, input, causedBy(row.id, options)) as Promise<JobHandle<never>>,
    again: (input, options) => parts.enqueue(spec.name, input, causedBy(row.id, options)),
    transaction: (fn) =>
      parts.transaction(async (tx) => {
        await holdClaim(run, tx, parts.runtime)
        return fn(tx)
      }),
    complete: (result, options) => completeIn(run, result, { tx: options?.tx, parts }),
    snooze,
    cancel: cancelled,
    discard: discarded,
  }
}

/** What is not an object is left to those who refuse it. */
function causedBy(id: string, options: EnqueueOptions | undefined): EnqueueOptions {
  if (options !== undefined && (typeof options !== 'object' || options === null)) return options
  return { ...options, parent: options?.parent ?? id }
}

/** Locks the job's row for the transaction, so that the lease cannot pass to another node before it ends. */
async function holdClaim(run: JobRun, tx: Tx, runtime: Runtime): Promise<void> {
  const { rows } = await tx.query(lockClaim.text(runtime.db.schema), [run.row.id, run.row.token])
  if (rows.length === 0) throw loseLease(run)
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
  const error = new ForgeError('FORGE_LEASE_LOST', `Job ${run.row.id}.`)
  abortRun(run, 'lost', error)
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
