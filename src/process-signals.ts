import type { Logger } from './kernel/index.js'

const signals = ['SIGTERM', 'SIGINT'] as const

/**
 * Option `signals`: stop the node, then let the same signal end the process as it would have without forge. Returns
 * what removes the listeners; stop() calls it last, so a second signal during a stop changes nothing.
 */
export function stopOnSignals(node: { stop(): Promise<void> }): () => void {
  const onSignal = (signal: NodeJS.Signals): void => {
    void node.stop().finally(() => process.kill(process.pid, signal))
  }
  for (const signal of signals) process.on(signal, onSignal)
  return () => {
    for (const signal of signals) process.off(signal, onSignal)
  }
}

/** A worker without HTTP and without a SIGTERM listener loses up to a lease of time at every deploy. */
export function warnOfSignals(applies: boolean, log: Logger): void {
  if (!applies || process.listenerCount('SIGTERM') > 0) return
  log.warn('forge: this worker has no SIGTERM listener; call node.stop() in one, or pass signals: true')
}
