import { type Duration, durationMs, ForgeError } from '../kernel/index.js'

const brand = Symbol.for('forge.outcome')

/** What a handler returns to say something other than "done": made by `job.snooze`, `job.cancel`, `job.discard`. */
export interface HandlerOutcome {
  readonly [brand]: 'snooze' | 'cancel' | 'discard'
  readonly delayMs: number
  readonly reason: string
}

export function snooze(delay: Duration): HandlerOutcome {
  return { [brand]: 'snooze', delayMs: durationMs(delay, 'The delay of snooze()'), reason: '' }
}

export function cancelled(reason: string): HandlerOutcome {
  return { [brand]: 'cancel', delayMs: 0, reason: String(reason) }
}

export function discarded(reason: string): HandlerOutcome {
  return { [brand]: 'discard', delayMs: 0, reason: String(reason) }
}

/** The kind of an outcome value, or null for an ordinary result. */
export function outcomeKind(value: unknown): 'snooze' | 'cancel' | 'discard' | null {
  if (typeof value !== 'object' || value === null || !(brand in value)) return null
  return (value as HandlerOutcome)[brand]
}

/** Thrown by a handler: this attempt failed, and the next one comes after `delay` whatever the backoff says. */
export class RetryAfter extends ForgeError {
  readonly delayMs: number

  constructor(delay: Duration, message?: string, options?: { cause?: unknown }) {
    super('FORGE_RETRY_AFTER', message, options)
    this.delayMs = durationMs(delay, 'The delay of RetryAfter')
  }
}

/** Thrown by a handler: give the job up now; further attempts would not help. */
export class Discard extends ForgeError {
  readonly reason: string

  constructor(reason: string, options?: { cause?: unknown }) {
    super('FORGE_DISCARD', reason, options)
    this.reason = String(reason)
  }
}
