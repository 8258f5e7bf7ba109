import { ForgeError, isForgeError, messageOf, type Timer } from '../kernel/index.js'
import { type ContextParts, createContext } from './context.js'
import type { Outcome } from './job.js'
import { type Discard, outcomeKind, type HandlerOutcome, type RetryAfter } from './outcome.js'
import { currentClaims } from './queries/finish.js'
import { abortRun, type JobRun } from './run.js'
import { validate } from './validate.js'

/** How long a handler may take to settle after its signal aborted, before forge goes on without it. */
const graceMs = 5_000
/** The same while the node stops: the process wants to end. */
const stopGraceMs = 1_000

/** The handler's own end: what it returned or threw. */
type Settled = { readonly value: unknown } | { readonly error: unknown; readonly unusable?: boolean }

export interface Execution {
  /** What to write for the job; known at the latest `graceMs` after an abort. */
  readonly outcome: Promise<Outcome>
  /** When the handler itself is done; its slot is taken until then. */
  readonly settled: Promise<unknown>
}

/**
 * One job, one pipeline: parse the input → call the handler under its timeout → read how it ended → and, if it said
 * that it completed in its own transaction, ask PostgreSQL whether that transaction committed.
 */
export function execute(run: JobRun, parts: ContextParts): Execution {
  const { clock } = parts.runtime
  const watch = clock.timer(run.spec.timeoutMs, () => {
    abortRun(run, 'timeout', new ForgeError('FORGE_JOB_TIMEOUT', `${run.spec.timeoutMs} ms.`))
  })
  const settled = handle(run, parts)
  const outcome = Promise.race([settled, patience(run, parts)])
    .then((end) => readEnd(run, end))
    .then((end) => confirmCompletion(run, end, parts))
    .finally(() => watch.cancel())
  return { outcome, settled }
}

async function handle(run: JobRun, parts: ContextParts): Promise<Settled> {
  let input: unknown
  try {
    input = await validate(run.spec.input, run.row.input, `The stored input of '${run.spec.name}'`)
  } catch (error) {
    return { error, unusable: true }
  }
  try {
    const value = await run.spec.run(input, createContext(run, parts))
    const plain = outcomeKind(value) !== null
    return {
      value: plain ? value : await validate(run.spec.output, value, `The result of '${run.spec.name}'`),
    }
  } catch (error) {
    return { error: error === undefined ? new Error('undefined was thrown') : error }
  }
}

/** Resolves `graceMs` after the signal aborted: a handler that ignores it must not hold its job for ever. */
function patience(run: JobRun, parts: ContextParts): Promise<Settled> {
  return new Promise((resolve) => {
    let timer: Timer | null = null
    const { signal } = run.controller
    const arm = (): void => {
      const ms = run.aborted === 'stop' ? stopGraceMs : graceMs
      timer ??= parts.runtime.clock.timer(ms, () => resolve({ error: signal.reason as unknown }))
    }
    if (signal.aborted) arm()
    else signal.addEventListener('abort', arm, { once: true })
  })
}

function readEnd(run: JobRun, end: Settled): Outcome {
  if (run.completedInTx) return { kind: 'completedInTx' }
  if ('value' in end) return readValue(end.value)
  const { error } = end
  if (run.aborted === 'lost') return { kind: 'lost' }
  if (run.aborted === 'stop' || run.aborted === 'contact') return { kind: 'handBack' }
  if (run.aborted === 'cancel') return { kind: 'cancel', reason: run.cancelReason }
  if (run.aborted === 'timeout') return { kind: 'threw', error: run.controller.signal.reason as unknown }
  // An input that does not parse will not parse next time either.
  if (end.unusable) return { kind: 'discard', reason: messageOf(error), error }
  return readError(error)
}

function readValue(value: unknown): Outcome {
  const kind = outcomeKind(value)
  if (kind === null) return { kind: 'returned', value }
  const { delayMs, reason } = value as HandlerOutcome
  return kind === 'snooze' ? { kind, delayMs } : { kind, reason }
}

/** The two marker errors, recognised by code, so that another copy of the package counts too. */
function readError(error: unknown): Outcome {
  if (isForgeError(error, 'FORGE_RETRY_AFTER')) {
    return { kind: 'retryAfter', error, delayMs: (error as unknown as RetryAfter).delayMs }
  }
  if (isForgeError(error, 'FORGE_DISCARD')) {
    return { kind: 'discard', reason: (error as unknown as Discard).reason, error }
  }
  return { kind: 'threw', error }
}

async function confirmCompletion(run: JobRun, outcome: Outcome, parts: ContextParts): Promise<Outcome> {
  if (outcome.kind !== 'completedInTx') return outcome
  try {
    const rows = await parts.runtime.db.control.run(currentClaims, [[run.row.id], [run.row.token]])
    if (rows.length === 0) return outcome
    return { kind: 'threw', error: new ForgeError('FORGE_COMPLETE_NOT_COMMITTED', `Job ${run.row.id}.`) }
  } catch {
    // Not known now. If it did not commit, the row still runs under this epoch: hand it back; if it did, no row is hit.
    return { kind: 'handBack' }
  }
}
