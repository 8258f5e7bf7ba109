/**
 * The one contract of everything that lives: start resolves when it works, stop when nothing of it is left.
 * Both are idempotent; stop before start is fine; stop during start waits for the start and then stops.
 */
export interface Service {
  readonly name: string
  start(): Promise<void>
  /** `deadlineMs` bounds how long work in hand may still take; after it the work is handed back. */
  stop(deadlineMs?: number): Promise<void>
}

/** Starts in order; when one fails, stops those that started, in reverse, and throws the failure. */
export async function startAll(services: readonly Service[]): Promise<void> {
  const started: Service[] = []
  try {
    for (const service of services) {
      started.push(service)
      await service.start()
    }
  } catch (error) {
    await stopAll(started)
    throw error
  }
}

/** Stops in reverse order. One that fails does not keep the others from stopping; the first failure is returned. */
export async function stopAll(services: readonly Service[], deadlineMs?: number): Promise<unknown> {
  let failure: unknown
  for (const service of [...services].reverse()) {
    try {
      await service.stop(deadlineMs)
    } catch (error) {
      failure ??= error
    }
  }
  return failure
}
