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
    .then((end) => (run.completedInTx ? confirmCompletion(run, end, parts) : readEnd(run, end)))
    .finally(() => watch.cancel())
  return { outcome, settled }
}

async function handle(run: JobRun, parts: ContextParts): Promise<Settled> {
  let input: unknown
  try {
    input = await parseStored(run)
  } catch (error) {
    return { error, unusable: true }
  }
  try {
    const value = await run.spec.run(input, createContext(run, parts))
    const plain = outcomeKind(value) !== null
    return {
      value: plain
        ? value
        : await validate(run.spec.output, value, {
            what: `The result of '${run.spec.name}'`,
            code: 'FORGE_RESULT_INVALID',
          }),
    }
  } catch (error) {
    return { error: error === undefined ? new Error('undefined was thrown') : error }
  }
}

/** An input that was never given is stored as null: a schema for which it is optional wants to see undefined. */
async function parseStored({ spec, row }: JobRun): Promise<unknown> {
  const what = { what: `The stored input of '${spec.name}'`, code: 'FORGE_INPUT_INVALID' } as const
  if (row.input !== null || !spec.input) return validate(spec.input, row.input, what)
  return validate(spec.input, undefined, what).catch(() => validate(spec.input, null, what))
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
  if ('value' in end) return readValue(end.value)
  const { error } = end
  if (run.aborted === 'lost') return { kind: 'lost' }
  if (run.aborted === 'stop' || run.aborted === 'contact') return { kind: 'handBack' }
  if (run.aborted === 'cancel') return { kind: 'cancel' }
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

/**
 * The handler called `complete(result, { tx })`. If its claim is still the current one, that transaction did not commit:
 * then what the handler threw counts as it would have, and what it returned does not.
 */
async function confirmCompletion(run: JobRun, end: Settled, parts: ContextParts): Promise<Outcome> {
  try {
    const rows = await parts.runtime.db.control.run(currentClaims, [[run.row.id], [run.row.token]])
    if (rows.length === 0) return { kind: 'completedInTx' }
  } catch {
    // Not known now. If it did not commit, the row still runs under this epoch: hand it back; if it did, no row is hit.
    return { kind: 'handBack' }
  }
  if (!('value' in end)) return readEnd(run, end)
  return { kind: 'threw', error: new ForgeError('FORGE_COMPLETE_NOT_COMMITTED', `Job ${run.row.id}.`) }
}
