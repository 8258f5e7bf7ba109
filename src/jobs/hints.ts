import type { Signals } from '../kernel/index.js'

/** Topics of this room on the signals port; keys are queue names, or ids where it says so. */
export const topics = {
  /** Work became available in a queue. */
  ready: 'jobs.ready',
  /** Work was put off: workers look when the next is due. */
  later: 'jobs.later',
  /** Running jobs were marked as cancelled; keys are their ids. */
  cancel: 'jobs.cancel',
  /** A queue was paused, resumed or scaled, or a limit changed. */
  queues: 'jobs.queues',
} as const

export function hintReady(signals: Signals, queue: string, waits: boolean): void {
  signals.hint(waits ? topics.later : topics.ready, queue)
}
