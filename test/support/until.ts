import { setTimeout as pause } from 'node:timers/promises'

export interface UntilOptions {
  /** Default 10 000. */
  readonly deadlineMs?: number
  /** What is waited for, as in "until <label>". */
  readonly label: string
}

const pollMs = 20

/**
 * Waits until `fn` gives something truthy and returns that. A throw counts as "not yet"; the last one is the cause of
 * the error that a missed deadline throws.
 */
export async function until<T>(
  fn: () => T | Promise<T>,
  { deadlineMs = 10_000, label }: UntilOptions,
): Promise<NonNullable<T>> {
  const since = performance.now()
  let cause: unknown
  for (;;) {
    try {
      const value = await fn()
      if (value) return value
      cause = undefined
    } catch (error) {
      cause = error
    }
    const waitedMs = performance.now() - since
    if (waitedMs > deadlineMs) throw new Error(`Waited ${Math.round(waitedMs)} ms until ${label}.`, { cause })
    await pause(pollMs)
  }
}
