import type { Clock } from './clock.js'

/**
 * AbortSignal is the only word for cancellation in forge. Every abort names its reason, every wait has a deadline.
 */

/** Resolves after `ms`, or at once when the signal aborts. It never rejects: the caller looks at the signal. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const timer = clock.timer(ms, done)
    function done(): void {
      timer.cancel()
      signal?.removeEventListener('abort', done)
      resolve()
    }
    signal?.addEventListener('abort', done, { once: true })
  })
}

/** A deadline: after `ms` milliseconds `late()` makes the error. */
export interface Deadline {
  readonly clock: Clock
  readonly ms: number
  readonly late: () => Error
}

/** The promise, or a rejection at the deadline. What the promise does later is ignored. */
export function within<T>(promise: Promise<T>, { clock, ms, late }: Deadline): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.timer(ms, () => reject(late()))
    promise.then(resolve, reject).finally(() => timer.cancel())
  })
}

/** The promise, or a rejection with the signal's reason as soon as it aborts. What the promise does later is ignored. */
export function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** A promise with its two ends in hand. */
export interface Deferred<T> {
  readonly promise: Promise<T>
  resolve(value: T): void
  reject(error: unknown): void
}

export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
