/* What is known of one lane, and what a claim makes of it. */

/** A lane that this process serves. */
export interface ServedLane {
  readonly id: number
  readonly queue: string
  readonly name: string
}

/** A place in the ready index of a lane: due in epoch seconds, and the id. */
export interface Position {
  readonly due: number
  readonly id: string
}

/** How one lane is read in a claim. */
export interface Reading {
  readonly lane: ServedLane
  /** So many are taken at most; 0: only what comes next is looked up. */
  readonly reads: number
  /** Null: from the start. */
  readonly from: Position | null
  /** Jobs that are due later than this (epoch seconds) are left: another lane may hold more urgent ones. */
  readonly until: number
  /** How the lane stood before. */
  readonly before: Pick<LaneState, 'bound' | 'unsure' | 'unswept' | 'sweptMs'>
}

/** What the reading of a lane brought. */
export interface Found {
  readonly took: number
  /** The last that was taken. */
  readonly last: Position | null
  /** What comes next, where less was taken than asked for; null: nothing does. */
  readonly next: Position | null
  /** The claim had its fill before it came to the end of this one. */
  readonly cut: boolean
}

export interface LaneState {
  readonly lane: ServedLane
  /** It may hold work that was not claimed. */
  maybe: boolean
  /** Nothing that is known to be there is due before this (epoch seconds); Infinity: nothing is known to be there. */
  bound: number
  /** It was not read yet, or something came up there, nobody said where. */
  unsure: boolean
  /** What stands before this was claimed, or is found by the next sweep. */
  from: Position | null
  /** How many of it a claim takes, if there is nothing more urgent. */
  depth: number
  /** It was read from a position since the last sweep. */
  unswept: boolean
  sweptMs: number
}

const depthFirst = 32
const depthMin = 2
const depthMax = 500
/** A lane that has more, due later than the claim reached, keeps so much of its depth. */
const depthKept = 0.75

export const newLane: Omit<LaneState, 'lane'> = {
  maybe: true,
  bound: Number.POSITIVE_INFINITY,
  unsure: true,
  from: null,
  depth: depthFirst,
  unswept: false,
  sweptMs: Number.NEGATIVE_INFINITY,
}

/** Work may have come up, at this due (epoch seconds) or later; null: anywhere. */
export function wake(state: LaneState, due: number | null): void {
  state.maybe = true
  if (due === null) state.unsure = true
  else state.bound = Math.min(state.bound, due)
  // At the very place where it stands: the id may be a lower one.
  if (due !== null && due === state.from?.due) state.from = { due, id: firstId }
  lower(state)
}

/** What is announced from now on counts for the next reading. `sweptMs`: it is read from its start, now. */
export function beginReading(
  state: LaneState,
  take: Pick<Reading, 'reads' | 'until'>,
  sweptMs: number | null,
): Reading {
  const { lane, from, bound, unsure, unswept } = state
  const before = { bound, unsure, unswept, sweptMs: state.sweptMs }
  state.maybe = false
  state.unsure = false
  state.bound = Number.POSITIVE_INFINITY
  state.unswept = sweptMs === null && (unswept || from !== null)
  state.sweptMs = sweptMs ?? state.sweptMs
  return { lane, from: sweptMs === null ? from : null, before, ...take }
}

/** It was not read after all. */
export function forgetReading(state: LaneState, { before }: Reading): void {
  const { bound, unsure, unswept, sweptMs } = before
  state.maybe = true
  state.bound = Math.min(state.bound, bound)
  state.unsure ||= unsure
  Object.assign(state, { unswept, sweptMs })
  lower(state)
}

/** What was announced meanwhile stands. `cut`: the claim had its fill in the middle of it. */
export function endReading(state: LaneState, { reads }: Reading, { took, last, next, cut }: Found): void {
  const filled = reads > 0 && took >= reads
  if (filled) state.depth = Math.min(Math.max(state.depth, 2 * reads), depthMax)
  else if (cut) state.depth = Math.min(Math.max(state.depth, took + 1), depthMax)
  else if (reads >= state.depth) {
    const kept = next ? Math.ceil(state.depth * depthKept) : depthMin
    state.depth = Math.min(Math.max(took + 1, kept), depthMax)
  }
  // Also after a sweep that took its fill before the old position: the way between is still to be read.
  const ahead = filled || cut ? last : next
  state.from = ahead ?? last ?? state.from
  if (ahead) state.maybe = true
  lower(state)
  state.bound = Math.min(state.bound, ahead?.due ?? Number.POSITIVE_INFINITY)
}

const firstId = '00000000-0000-0000-0000-000000000000'

/** Not behind what was announced; an announcement names a second, or no place at all. */
function lower(state: LaneState): void {
  if (state.unsure) state.from = null
  else if (state.from && state.bound < state.from.due) state.from = { due: state.bound, id: firstId }
}
