import type { Signals } from '../kernel/index.js'

/** Topics of this room on the signals port; keys are ids, or where it says so something else. */
export const topics = {
  /** Work became available; keys are lanes with the second from which on to look: `<lane>@<due>`, or `<lane>`. */
  ready: 'jobs.ready',
  /** Work was put off: workers look when the next is due. */
  later: 'jobs.later',
  /** Running jobs were marked as cancelled; keys are their ids. */
  cancel: 'jobs.cancel',
} as const

/** What became available, or will (`waits`). `due` in epoch seconds: nothing of it stands before; null: not known. */
export interface Ready {
  readonly lane: number
  readonly waits: boolean
  readonly due: number | null
}

export function hintReady(signals: Signals, { lane, waits, due }: Ready): void {
  if (waits) signals.hint(topics.later, String(lane))
  // Whole seconds: what was announced a moment ago is not announced again.
  else signals.hint(topics.ready, due === null ? String(lane) : `${lane}@${Math.floor(due)}`)
}

/** The lane and due of a key of `topics.ready`; null for what no node of ours would say. */
export function parseReady(key: string): { readonly lane: number; readonly due: number | null } | null {
  const match = /^(\d{1,10})(?:@(-?\d{1,15}))?$/.exec(key)
  if (!match) return null
  return { lane: Number(match[1]), due: match[2] === undefined ? null : Number(match[2]) }
}
