import type { Logger } from 'forge'

/** How long running jobs may go on after the process was told to end; then they are handed back and run elsewhere. */
export const stopTimeout = '2s'

/** A process that cannot end in order, because its database is gone, ends anyway. */
const stopMsMax = 15_000

/** forge's messages on the terminal. A logger such as pino fits in here as it is. */
export function terminalLogger(name: string): Logger {
  const line = (message: string): void => console.error(`${name}: ${message}`)
  return { debug: () => {}, info: () => {}, warn: line, error: line }
}

/**
 * Calls `stop` once, then ends the process: on SIGTERM, on Ctrl-C, and when the demo that started it is gone. Ctrl-C
 * reaches every process of a terminal at once; under the demo it is left to the demo, which ends them in order.
 */
export function endInOrder(stop: () => Promise<void>): void {
  let ending = false
  const end = (): void => {
    if (ending) return
    ending = true
    setTimeout(() => process.exit(1), stopMsMax).unref()
    stop().then(
      () => process.exit(0),
      (error: unknown) => {
        console.error(error)
        process.exit(1)
      },
    )
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', process.send ? () => {} : end)
  process.on('disconnect', end)
}

/** Tells the demo, if it started this process, that the work can begin. */
export function reportReady(detail: object = {}): void {
  process.send?.({ type: 'ready', ...detail })
}
