import { killChildren } from './child.ts'

/** A terminal, npm and the launcher may each pass on the same Ctrl-C; a person needs longer for a second one. */
const sameMsMax = 750

/**
 * Aborts when the demo is to end: Ctrl-C, SIGTERM, SIGHUP, or the process that started it is gone. The second time the
 * person does not want to wait for order: everything is killed.
 */
export function listenForEnd(): AbortSignal {
  const ending = new AbortController()
  let firstAt = 0
  const onSignal = (): void => {
    if (!ending.signal.aborted) {
      firstAt = performance.now()
      ending.abort(new Error('asked to end'))
    } else if (performance.now() - firstAt > sameMsMax) {
      killChildren()
      // The database ends with this process.
      process.exit(130)
    }
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
  process.once('disconnect', onSignal)
  // Listening must not keep a finished demo alive.
  process.channel?.unref()
  return ending.signal
}

/**
 * Runs `work` until it is done, fails or is asked to end; then ends what it put on the stage, last come first. What
 * `work` was waiting for when it was asked goes on alone and finds the stage closed.
 * @returns the exit code: 0 also when it was asked to end
 */
export async function onStage(work: (stage: AsyncDisposableStack, ending: AbortSignal) => Promise<void>) {
  const ending = listenForEnd()
  const stage = new AsyncDisposableStack()
  try {
    const asked = new Promise<void>((resolve) => ending.addEventListener('abort', () => resolve()))
    const working = work(stage, ending)
    working.catch(() => {})
    await Promise.race([working, asked])
    if (ending.aborted) console.log('\nEnding in order. Ctrl-C again forces it.')
  } catch (error) {
    console.error(`\nThe demo failed: ${(error as Error).message}`)
    process.exitCode = 1
  } finally {
    await stage.disposeAsync()
  }
  process.exit()
}
