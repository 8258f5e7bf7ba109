import { ForgeError, isForgeError, messageOf } from '../kernel/index.js'
import { type ContextParts, RunContext } from './context.js'
import type { Outcome } from './job.js'
import { type Discard, outcomeKind, type HandlerOutcome, type RetryAfter } from './outcome.js'
import { readInput } from './queries/look.js'
import { currentClaims } from './queries/finish.js'
import type { JobRun } from './run.js'
import { validate, validateStored } from './validate.js'

/** How long a handler may take to settle after its signal aborted, before forge goes on without it. */
const graceMs = 5_000
/** The same while the node stops: the process wants to end. */
const stopGraceMs = 1_000

/** The handler's own end: what it returned or threw. */
type Settled = { readonly value: unknown } | Failed

interface Failed {
  readonly error: unknown
  /** The stored input did not parse. */
  readonly unusable: boolean
}

/** Who is told how a run went. */
export interface RunListener {
  /** What to write for the job: when its handler is done, or at the latest `graceMs` after an abort. */
  concluded(run: JobRun, outcome: Outcome): void
  /** The handler itself is done; its slot is taken until then. */
  settled(run: JobRun): void
}

/**
 * One job, one pipeline: read and parse the input → call the handler → read how it ended → and, if it said that it
 * completed in its own transaction, ask PostgreSQL whether that transaction committed. Never rejects. Most jobs need no
 * more than the call: they pay for one promise, and for no step that is not theirs.
 */
export async function execute(run: JobRun, parts: ContextParts, listener: RunListener): Promise<void> {
  const { spec, row } = run
  let started = false
  let end: Settled
  try {
    const input = row.big || spec.input ? await prepareInput(run, parts) : row.input
    started = true
    const value = await spec.run(input, new RunContext(run, parts))
    end = { value: spec.output && outcomeKind(value) === null ? await parseResult(run, value) : value }
  } catch (thrown) {
    const error = started && thrown === undefined ? new Error('undefined was thrown') : thrown
    end = { error, unusable: !started && isForgeError(error, 'FORGE_INPUT_INVALID') }
  }
  run.settled = true
  if (!run.concluded) {
    run.concluded = true
    listener.concluded(run, run.completedInTx ? await confirmCompletion(run, end, parts) : readEnd(run, end))
  }
  listener.settled(run)
}

/** A handler that ignores its signal must not hold its job for ever. */
export function armPatience(run: JobRun, parts: ContextParts, listener: RunListener): void {
  parts.runtime.clock.timer(run.hurried ? stopGraceMs : graceMs, () => {
    if (run.concluded) return
    run.concluded = true
    const end = { error: run.reason, unusable: false }
    if (!run.completedInTx) return listener.concluded(run, readEnd(run, end))
    void confirmCompletion(run, end, parts).then((outcome) => listener.concluded(run, outcome))
  })
}

async function prepareInput(run: JobRun, parts: ContextParts): Promise<unknown> {
  const input = run.row.big ? await fetchInput(run, parts) : run.row.input
  return validateStored(run.spec, input)
}

/** @throws ForgeError FORGE_LEASE_LOST; what the connection throws: then the job is handed back */
async function fetchInput(run: JobRun, { runtime }: ContextParts): Promise<unknown> {
  try {
    const [row] = await runtime.db.control.run(readInput, [run.id, run.token])
    if (row) return row.input
  } catch (error) {
    run.abort(
      'contact',
      new ForgeError('FORGE_CONNECTION_LOST', `The input of job ${run.id}.`, { cause: error }),
    )
    throw error
  }
  const lost = new ForgeError('FORGE_LEASE_LOST', `Job ${run.id}.`)
  run.abort('lost', lost)
  throw lost
}

function parseResult({ spec }: JobRun, value: unknown): Promise<unknown> {
  return validate(spec.output, value, { what: `The result of '${spec.name}'`, code: 'FORGE_RESULT_INVALID' })
}

function readEnd(run: JobRun, end: Settled): Outcome {
  try {
    return 'value' in end ? readValue(end.value) : readFailure(run, end)
  } catch (error) {
    // What was returned or thrown may be a proxy that throws wherever it is touched.
    return { kind: 'threw', error }
  }
}

function readFailure(run: JobRun, { error, unusable }: Failed): Outcome {
  if (run.aborted === 'lost') return { kind: 'lost' }
  if (run.aborted === 'stop' || run.aborted === 'contact') return { kind: 'handBack' }
  if (run.aborted === 'cancel') return { kind: 'cancel' }
  if (run.aborted === 'timeout') return { kind: 'threw', error: run.reason }
  // An input that does not parse will not parse next time either.
  if (unusable) return { kind: 'discard', reason: messageOf(error), error }
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
    const rows = await parts.runtime.db.control.run(currentClaims, [[run.id], [run.token]])
    if (rows.length === 0) return { kind: 'completedInTx' }
  } catch {
    // Not known now. If it did not commit, the row still runs under this epoch: hand it back; if it did, no row is hit.
    return { kind: 'handBack' }
  }
  if (!('value' in end)) {
    const outcome = readEnd(run, end)
    // It believed the claim lost; it is not.
    return outcome.kind === 'lost' ? { kind: 'threw', error: end.error } : outcome
  }
  return { kind: 'threw', error: new ForgeError('FORGE_COMPLETE_NOT_COMMITTED', `Job ${run.id}.`) }
}
