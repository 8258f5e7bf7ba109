import type { Signals } from '../kernel/index.js'

/** Topics of this room on the signals port; keys are ids, or where it says so something else. */
export const topics = {
  /** Work became available; keys are lanes with the second from which on to look: `<lane>@<due>`, or `<lane>`. */
  ready: 'jobs.ready',
  /** Work was put off: workers look when the next is due. */
  later: 'jobs.later',
  /** Running jobs were marked as cancelled; keys are their ids. */
  cancel: 'jobs.cancel',
  /** A queue was paused, resumed or scaled, or a limit changed. */
  queues: 'jobs.queues',
} as const

/** What became available, or will (`waits`). `due` in epoch seconds: nothing of it stands before; null: not known. */
export interface Ready {
  readonly lane: number
  readonly waits: boolean
  readonly due: number | null
}

export function hintReady(signals: Signals, { lane, waits, due }: Ready): void {
  if (waits) signals.hint(topics.later, String(lane))
  else signals.hint(topics.ready, readyKey(lane, due))
}

/** Whole seconds: what was announced a moment ago is not announced again. */
export function readyKey(lane: number, due: number | null): string {
  return due === null ? String(lane) : `${lane}@${Math.floor(due)}`
}

/** The lane and due of a key of `topics.ready`; null for what no node of ours would say. */
export function parseReady(key: string): { readonly lane: number; readonly due: number | null } | null {
  const match = /^(\d{1,10})(?:@(-?\d{1,11}))?$/.exec(key)
  if (!match) return null
  return { lane: Number(match[1]), due: match[2] === undefined ? null : Number(match[2]) }
}

/** What one statement made available in a lane, or put off. */
export interface Announcement {
  readonly lane: number
  readonly waits: boolean
  /** The smallest due, in whole seconds since 1970. */
  readonly dueSeconds: number
}

/** One hint per lane, with the smallest position. */
export function announce(signals: Signals, made: readonly Announcement[]): void {
  const ready = new Map<number, number>()
  const later = new Set<number>()
  for (const { lane, waits, dueSeconds } of made) {
    if (waits) later.add(lane)
    else ready.set(lane, Math.min(ready.get(lane) ?? dueSeconds, dueSeconds))
  }
  for (const [lane, due] of ready) hintReady(signals, { lane, waits: false, due })
  for (const lane of later) hintReady(signals, { lane, waits: true, due: null })
}
