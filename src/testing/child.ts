/**
 * The child's side of `spawnNode`. A script that calls either function exits when its parent goes, however the parent
 * ended, as soon as its event loop turns. Outside a spawned process both do nothing, so the script can be run by hand.
 *
 * Reporting keeps the process alive until it is stopped. A script that is to end by itself, because nothing of it is
 * left open, calls `process.channel?.unref()` after its first report.
 */

/** Sends `{ ...detail, type: 'ready' }`, for which `NodeProcess.ready` waits. Resolves when it is handed over. */
export function reportReady(detail: object = {}): Promise<void> {
  return report({ ...detail, type: 'ready' })
}

/** Sends a message of JSON values to the parent. Resolves when it is handed over, or when there is no parent any more. */
export function report(message: object): Promise<void> {
  if (process.send === undefined || !process.connected) return Promise.resolve()
  if (!process.listeners('disconnect').includes(leave)) process.on('disconnect', leave)
  return new Promise((resolve) => {
    process.send?.(message, undefined, undefined, () => resolve())
  })
}

function leave(): void {
  process.exit(0)
}
