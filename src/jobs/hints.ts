import type { Signals } from '../kernel/index.js'

/** Topics of this room on the signals port; keys are queue names, or what it says. */
export const topics = {
  /** Work became available in a queue; keys as `readyKey` makes them. */
  ready: 'jobs.ready',
  /** Work was put off: workers look when the next is due. */
  later: 'jobs.later',
  /** Running jobs were marked as cancelled; keys are their ids. */
  cancel: 'jobs.cancel',
} as const

/**
 * `<queue>@<second>`: the smallest `due` that is announced, in whole seconds since 1970, so that a worker which reads
 * from a remembered position onward sees what is more urgent. No name holds an '@'.
 */
export function readyKey(queue: string, dueSeconds: number): string {
  return `${queue}@${dueSeconds}`
}

/** What a ready key says; a bare queue name, and whatever else was forged, says nothing about the position. */
export function parseReady(key: string): { readonly queue: string; readonly dueSeconds: number | null } {
  const at = key.lastIndexOf('@')
  if (at < 0) return { queue: key, dueSeconds: null }
  const text = key.slice(at + 1)
  return { queue: key.slice(0, at), dueSeconds: /^\d{1,12}$/.test(text) ? Number(text) : null }
}

export function hintReady(signals: Signals, queue: string, waits: boolean): void {
  signals.hint(waits ? topics.later : topics.ready, queue)
}

/** What one statement made of jobs in a queue: how urgent the most urgent is, or that they wait for their time. */
export interface Announcement {
  readonly queue: string
  readonly waits: boolean
  readonly dueSeconds: number
}

/** One hint per queue, with the smallest position. */
export function announce(signals: Signals, made: readonly Announcement[]): void {
  const ready = new Map<string, number>()
  const later = new Set<string>()
  for (const { queue, waits, dueSeconds } of made) {
    if (waits) later.add(queue)
    else ready.set(queue, Math.min(ready.get(queue) ?? dueSeconds, dueSeconds))
  }
  for (const [queue, dueSeconds] of ready) signals.hint(topics.ready, readyKey(queue, dueSeconds))
  for (const queue of later) signals.hint(topics.later, queue)
}
