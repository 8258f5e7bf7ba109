import { ForgeError, systemClock, within } from '../kernel/index.js'

/** How long a wait of the kit may take. */
export interface Deadline {
  /** Milliseconds; default 10,000. */
  readonly deadlineMs?: number
}

export const deadlineMsDefault = 10_000

/** Waits for `promise`; after `deadlineMs` it throws FORGE_TEST_DEADLINE with what `describe` says then. */
export function withDeadline<T>(promise: Promise<T>, deadlineMs: number, describe: () => string): Promise<T> {
  const late = (): Error => new ForgeError('FORGE_TEST_DEADLINE', `${describe()} (${deadlineMs} ms).`)
  return within(promise, { clock: systemClock, ms: deadlineMs, late })
}
