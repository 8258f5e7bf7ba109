import type { Clock, Logger } from '../kernel/index.js'

const signals = ['SIGTERM', 'SIGINT'] as const

/**
 * Option `signals`: stop the node, then let the same signal end the process as it would have without forge. Where the
 * host listens for it too, ending the process is the host's. Returns what removes the listeners; stop() calls it last,
 * so a second signal during a stop changes nothing.
 */
export function stopOnSignals(node: { stop(): Promise<void> }): () => void {
  const off = (): void => {
    for (const signal of signals) process.off(signal, onSignal)
  }
  function onSignal(signal: NodeJS.Signals): void {
    const end = (): void => {
      off()
      if (process.listenerCount(signal) === 0) process.kill(process.pid, signal)
    }
    node.stop().then(end, end)
  }
  for (const signal of signals) process.on(signal, onSignal)
  return off
}

/** Most hosts add their listener right after attach resolves. */
const lookMs = 1_000

/**
 * A worker without HTTP and without a SIGTERM listener loses up to a lease of time at every deploy. Returns what ends
 * the watch.
 */
export function warnOfSignals(clock: Clock, log: Logger): () => void {
  const timer = clock.timer(lookMs, () => {
    if (process.listenerCount('SIGTERM') > 0) return
    log.warn('forge: this worker has no SIGTERM listener; call node.stop() in one, or pass signals: true')
  })
  return () => timer.cancel()
}

/**
 * Keeps the process alive until the returned function is called. Connections do that too, but there are none while
 * PostgreSQL is away, and all timers of forge are unref'd: a worker would end in the middle of an outage.
 */
export function stayAlive(): () => void {
  const handle = setInterval(() => {}, 2_147_483_647)
  return () => clearInterval(handle)
}
