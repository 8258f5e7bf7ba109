import { type Backoff, backoffMs, storableText } from '../kernel/index.js'

/**
 * What a job is: its states, and what becomes of it when its handler is done. Pure: no clock, no database.
 *
 *   scheduled ──due──▶ available ──claim──▶ running ──▶ completed
 *   blocked ──admitted──▶ available            ├──▶ retryable ──due──▶ available
 *                                              ├──▶ scheduled (snooze) · available (handed back)
 *                                              └──▶ discarded · cancelled · quarantined
 */
export const jobStates = [
  'scheduled',
  'blocked',
  'available',
  'running',
  'retryable',
  'completed',
  'cancelled',
  'discarded',
  'quarantined',
] as const

export type JobState = (typeof jobStates)[number]
export type FinalState = 'completed' | 'cancelled' | 'discarded' | 'quarantined'

/** The number that a state has in the tables. */
export function stateNumber(state: JobState): number {
  return jobStates.indexOf(state)
}

export function stateName(number: number): JobState {
  return jobStates[number] as JobState
}

/** From this number on a state is final: the row rests in history. */
export const firstFinal = stateNumber('completed')

export const priorities = { background: 0, low: 25, normal: 50, high: 75, critical: 100 } as const
export type Priority = keyof typeof priorities | number

/** Inputs up to this many bytes of JSON come with the claim; larger ones when the job starts. */
export const inputBytesInline = 32_768

/** Claims that a process died under, before the job is set aside. */
export const crashesMax = 3
/** From so many on a job is a suspect: one of them runs in a process at a time. */
export const suspectCrashes = 2
/** How many of its last errors a job keeps. */
export const errorsKept = 10

/** One failed attempt as it is stored. */
export interface JobError {
  readonly at: string
  readonly attempt: number
  readonly name: string
  readonly code?: string
  readonly message: string
  readonly stack?: string
  readonly node: string
}

/** How failed attempts are retried. Times in milliseconds. */
export interface RetryPolicy extends Backoff {
  readonly attempts: number
  readonly when: (error: unknown) => boolean
  /** In place of the rest: gives the delay in ms, or throws. */
  readonly delay: ((attempt: number, error: unknown) => number) | null
}

/** How long finished jobs are kept, in milliseconds; 0 keeps nothing. */
export interface Keep {
  readonly completedMs: number
  readonly discardedMs: number
}

/** What came out of one run of a handler. */
export type Outcome =
  | { readonly kind: 'returned'; readonly value: unknown }
  | { readonly kind: 'threw'; readonly error: unknown }
  | { readonly kind: 'retryAfter'; readonly error: unknown; readonly delayMs: number }
  | { readonly kind: 'snooze'; readonly delayMs: number }
  | { readonly kind: 'discard'; readonly reason: string; readonly error?: unknown }
  /** Without a reason of its own the one of the cancel mark counts. */
  | { readonly kind: 'cancel'; readonly reason?: string }
  /** Aborted by forge itself: shutdown, lost contact. Costs no attempt. */
  | { readonly kind: 'handBack' }
  /** `complete(result, { tx })` was called and its transaction committed. */
  | { readonly kind: 'completedInTx' }
  /** Another claim owns the job, or nobody does. Nothing may be written. */
  | { readonly kind: 'lost' }

/** What is written for an outcome. */
export type Finish =
  | {
      readonly kind: 'final'
      readonly state: FinalState
      readonly value?: unknown
      readonly error?: unknown
      readonly reason?: string
    }
  | {
      readonly kind: 'again'
      readonly state: 'scheduled' | 'available' | 'retryable'
      readonly delayMs: number
      /** Attempts given back: the claim counted one. */
      readonly refund: 0 | 1
      readonly error?: unknown
    }
  | { readonly kind: 'none' }

/** Decides what is written. `attempt` counts from 1 and includes this run; `random` is in [0, 1). */
export function decide(
  outcome: Outcome,
  run: { readonly attempt: number; readonly attemptsMax: number },
  policy: { readonly retry: RetryPolicy; readonly random: number },
): Finish {
  switch (outcome.kind) {
    case 'returned':
      return { kind: 'final', state: 'completed', value: outcome.value }
    case 'snooze':
      return { kind: 'again', state: 'scheduled', delayMs: outcome.delayMs, refund: 1 }
    case 'handBack':
      return { kind: 'again', state: 'available', delayMs: 0, refund: 1 }
    case 'discard':
      return { kind: 'final', state: 'discarded', reason: outcome.reason, error: outcome.error }
    case 'cancel':
      return { kind: 'final', state: 'cancelled', ...(outcome.reason ? { reason: outcome.reason } : {}) }
    case 'completedInTx':
    case 'lost':
      return { kind: 'none' }
    default:
      return afterFailure(outcome, run, policy)
  }
}

function afterFailure(
  outcome: Outcome & { readonly kind: 'threw' | 'retryAfter' },
  run: { readonly attempt: number; readonly attemptsMax: number },
  policy: { readonly retry: RetryPolicy; readonly random: number },
): Finish {
  const { error } = outcome
  if (run.attempt >= run.attemptsMax) {
    return {
      kind: 'final',
      state: 'discarded',
      reason: `failed ${run.attempt} of ${run.attemptsMax} attempts`,
      error,
    }
  }
  if (outcome.kind === 'threw' && !wants(policy.retry, error)) {
    return { kind: 'final', state: 'discarded', reason: 'retry.when declined', error }
  }
  const delayMs = outcome.kind === 'retryAfter' ? outcome.delayMs : delayAfter(error, run.attempt, policy)
  return { kind: 'again', state: 'retryable', delayMs, refund: 0, error }
}

/** A function of the host that throws, or gives no duration, must not decide over the job. */
function delayAfter(
  error: unknown,
  attempt: number,
  { retry, random }: { readonly retry: RetryPolicy; readonly random: number },
): number {
  try {
    if (retry.delay) return retry.delay(attempt, error)
  } catch {
    // As if it had not been given.
  }
  return backoffMs(retry, attempt, random)
}

/** A `when` that throws, or is asynchronous, counts as "retry": losing work for a bug in the decision would be worse. */
function wants(retry: RetryPolicy, error: unknown): boolean {
  try {
    return Boolean(heard(retry.when(error)))
  } catch {
    return true
  }
}

/** What a function of the host answered. One that is asynchronous may reject later; nobody else would listen. */
export function heard(answer: unknown): unknown {
  if (answer instanceof Promise) answer.catch(() => {})
  return answer
}

/** The stored form of a thrown value, whatever it is: cut, and free of what PostgreSQL refuses. */
export function describeError(
  error: unknown,
  about: { at: string; attempt: number; node: string },
): JobError {
  const read = (key: string): unknown => {
    try {
      return (error as Record<string, unknown> | null)?.[key]
    } catch {
      return undefined
    }
  }
  const isObject = typeof error === 'object' && error !== null
  const [name, code, stack] = [read('name'), read('code'), read('stack')]
  return {
    ...about,
    name: storableText(isObject && typeof name === 'string' ? name : 'Error', 200),
    ...(typeof code === 'string' ? { code: storableText(code, 200) } : {}),
    message: storableText(isObject ? (read('message') ?? 'no message') : error, 4_000),
    ...(typeof stack === 'string' ? { stack: storableText(stack, 8_000) } : {}),
  }
}
