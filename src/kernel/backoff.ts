/** How long to wait before the next attempt. Times in milliseconds. */
export interface Backoff {
  readonly kind: 'fixed' | 'linear' | 'exponential'
  readonly baseMs: number
  readonly maxMs: number
  /** Share of the delay that is random, 0 to 1, both ways: 0.25 turns 1 s into 0.75 s to 1.25 s. */
  readonly jitter: number
}

/**
 * The delay after failed attempt number `attempt` (1 for the first). `random` is in [0, 1).
 * Exponential doubles: base, 2·base, 4·base … up to max; jitter is applied last, so that a fleet that fails
 * together does not come back together even at the ceiling.
 */
export function backoffMs(backoff: Backoff, attempt: number, random: number): number {
  const n = Math.max(attempt, 1)
  const factor = backoff.kind === 'fixed' ? 1 : backoff.kind === 'linear' ? n : 2 ** Math.min(n - 1, 50)
  const flat = Math.min(backoff.baseMs * factor, backoff.maxMs)
  return Math.round(flat * (1 + backoff.jitter * (2 * random - 1)))
}
