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
}

/** How the lanes of one queue are read in a claim that takes `n` of its jobs at most. */
export interface Plan {
  readonly queue: string
  readonly readings: readonly Reading[]
  readonly n: number
  /** The due of the most urgent job that is known (epoch seconds); Infinity: none is. */
  readonly first: number
}

/** What the reading of a lane brought. */
export interface Found {
  readonly took: number
  /** The last that was taken. */
  readonly last: Position | null
  /** What comes next, where less was taken than asked for; null: nothing does. */
  readonly next: Position | null
}

interface LaneState {
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

/**
 * Jobs of one queue start in the order of their due, exact to this many seconds between lanes: half a step of priority,
 * so that of two jobs that came at the same time the more urgent is the first.
 */
const slackMin = 3
const depthFirst = 8
const depthMin = 2
const depthMax = 500
/** A lane that has more, due later than the claim reached, keeps so much of its depth. */
const depthKept = 0.75
/** In one claim. */
const lanesMax = 100
/** Lanes whose turn has not come and that are swept in passing. */
const looksMax = 4
/** A sweep takes at most a twentieth of the time. */
const sweepShare = 20
const sweepMsMin = 25
const sweepMsMax = 1_000

/**
 * Which lanes may hold work, and from where to read them. Claimed rows leave dead entries at the front of the index
 * until a vacuum, or for as long as an old snapshot is held; a claim that starts behind the last claimed position does
 * not walk them. What comes in before that position (more urgent, put back, committed late) is told by its wake-up, or
 * found by a sweep from the start, at most every 20 times the time that a trip takes.
 *
 * The lanes of a queue are read in the order of their most urgent job, as deep as they are known to be, until the claim
 * has its fill: few of many, and no job that is due much later than the most urgent of all. So a claim of many lanes costs
 * hardly more than one of a single lane. A claim that has room left lets the next one reach as far as it takes to fill it:
 * no slot stays free for the sake of the order. A lane that then turns out to be deeper than it was ends that.
 */
export class Frontier {
  #lanes = new Map<number, LaneState>()
  /** By queue: how many seconds behind the most urgent job a claim takes others. */
  readonly #slack = new Map<string, number>()
  #sweepMs = sweepMsMin
  /** When lanes were last swept in passing. */
  #passedMs = Number.NEGATIVE_INFINITY

  get lanes(): readonly ServedLane[] {
    return [...this.#lanes.values()].map(({ lane }) => lane)
  }

  serves(lane: number): boolean {
    return this.#lanes.has(lane)
  }

  lane(id: number): ServedLane | undefined {
    return this.#lanes.get(id)?.lane
  }

  /** These are served from now on; new ones may hold work. */
  serve(lanes: readonly ServedLane[]): void {
    const old = this.#lanes
    this.#lanes = new Map(
      lanes.map((lane) => {
        return [lane.id, { ...(old.get(lane.id) ?? unread), lane }]
      }),
    )
  }

  /** Work may have come up in these lanes (null: in all), at this due (epoch seconds) or later; null: anywhere. */
  wake(lanes: Iterable<number> | null, due: number | null): void {
    for (const id of lanes ?? this.#lanes.keys()) {
      const state = this.#lanes.get(id)
      if (!state) continue
      state.maybe = true
      if (due === null) state.unsure = true
      else state.bound = Math.min(state.bound, due)
      lower(state)
    }
  }

  /** Queues with lanes that may hold work. */
  hungry(): Set<string> {
    const queues = new Set<string>()
    for (const { maybe, lane } of this.#lanes.values()) if (maybe) queues.add(lane.queue)
    return queues
  }

  /** How to read the lanes of one queue, of which `n` jobs are wanted. */
  plan(queue: string, n: number, nowMs: number): Plan {
    const states = [...this.#lanes.values()].filter(({ maybe, lane }) => maybe && lane.queue === queue)
    const [only, second] = states.sort(byBound)
    const first = only?.bound ?? Number.POSITIVE_INFINITY
    if (only && !second) return { queue, n, first, readings: [this.#reading(only, everything(n), nowMs)] }
    // Nobody knows what is there: the next claim does.
    if (first === Number.POSITIVE_INFINITY)
      return { queue, n, first, readings: this.#looks(states.slice(0, lanesMax), nowMs) }
    const far = first + (this.#slack.get(queue) ?? slackMin)
    const reads = shareOut(states, far, n)
    const others = states.slice(reads.length)
    const unsure = others.filter((state) => state.unsure).slice(0, lanesMax)
    const beyond = (others[0]?.bound ?? Number.POSITIVE_INFINITY) + slackMin
    // What is read alone, and beside nothing unknown, comes in its own order as far as the next lane begins.
    const until = reads.length === 1 && unsure.length === 0 ? beyond : Math.min(far, beyond)
    const readings = reads.map((each, at) =>
      this.#reading(states[at] as LaneState, { reads: each, until }, nowMs),
    )
    const looks = [...unsure, ...this.#overdue(others, nowMs)]
    return { queue, n, first, readings: [...readings, ...this.#looks(looks, nowMs)] }
  }

  /** A few of the lanes that were not read from their start for long; once in a while. */
  #overdue(states: readonly LaneState[], nowMs: number): readonly LaneState[] {
    if (nowMs - this.#passedMs < this.#sweepMs) return []
    this.#passedMs = nowMs
    return states
      .filter((state) => !state.unsure && this.#isToSweep(state, nowMs))
      .sort((one, other) => one.sweptMs - other.sweptMs)
      .slice(0, looksMax)
  }

  #looks(states: readonly LaneState[], nowMs: number): Reading[] {
    return states.map((state) => this.#reading(state, { reads: 0, until: Number.NEGATIVE_INFINITY }, nowMs))
  }

  #reading(state: LaneState, take: Pick<Reading, 'reads' | 'until'>, nowMs: number): Reading {
    const sweeps = this.#isToSweep(state, nowMs)
    state.maybe = false
    state.unsure = false
    state.bound = Number.POSITIVE_INFINITY
    state.unswept = !sweeps && (state.unswept || state.from !== null)
    if (sweeps) state.sweptMs = nowMs
    return { lane: state.lane, from: sweeps ? null : state.from, ...take }
  }

  #isToSweep({ sweptMs }: LaneState, nowMs: number): boolean {
    return nowMs - sweptMs >= this.#sweepMs
  }

  /** What a claim brought of each lane. */
  read({ queue, n, first, readings }: Plan, found: ReadonlyMap<number, Found>): void {
    let took = 0
    /** The last due that was taken at all, and the first behind which a lane may hold more than it was read for. */
    let last = Number.NEGATIVE_INFINITY
    let cut = Number.POSITIVE_INFINITY
    for (const reading of readings) {
      const each = found.get(reading.lane.id) ?? nothing
      this.#note(reading, each)
      took += each.took
      if (!each.last) continue
      last = Math.max(last, each.last.due)
      if (each.took >= reading.reads) cut = Math.min(cut, each.last.due)
    }
    if (last > cut + slackMin) this.#slack.set(queue, slackMin)
    else if (took < n && cut === Number.POSITIVE_INFINITY) this.#reach(queue, first)
  }

  /** The last claim had room left: the next one reaches what comes next, and as much further. */
  #reach(queue: string, first: number): void {
    let next = Number.POSITIVE_INFINITY
    for (const { maybe, bound, lane } of this.#lanes.values())
      if (maybe && lane.queue === queue) next = Math.min(next, bound)
    const slack = this.#slack.get(queue) ?? slackMin
    const reach = next < Number.POSITIVE_INFINITY && first < Number.POSITIVE_INFINITY
    this.#slack.set(queue, reach ? Math.max(slack, 2 * (next - first)) : slackMin)
  }

  /** What was announced meanwhile stands. */
  #note({ lane, reads }: Reading, { took, last, next }: Found): void {
    const state = this.#lanes.get(lane.id)
    if (!state) return
    const filled = reads > 0 && took >= reads
    if (filled) state.depth = Math.min(Math.max(state.depth, 2 * reads), depthMax)
    else if (reads >= state.depth) {
      const kept = next ? Math.ceil(state.depth * depthKept) : depthMin
      state.depth = Math.min(Math.max(took + 1, kept), depthMax)
    }
    // Also after a sweep that took its fill before the old position: the way between is still to be read.
    const ahead = filled ? last : next
    state.from = ahead ?? last ?? state.from
    if (ahead) state.maybe = true
    lower(state)
    state.bound = Math.min(state.bound, ahead?.due ?? Number.POSITIVE_INFINITY)
  }

  /** A trip failed: what it was to read is still unread. */
  unread(readings: readonly Reading[]): void {
    for (const { lane } of readings) {
      const state = this.#lanes.get(lane.id)
      if (!state) continue
      Object.assign(state, { maybe: true, unsure: true })
      lower(state)
    }
  }

  /** A trip took so long: sweeps keep their distance. */
  took(ms: number): void {
    this.#sweepMs = Math.min(Math.max(ms * sweepShare, sweepMsMin), sweepMsMax)
  }

  /** Milliseconds until a lane that seems empty should be read from its start; infinite: none. */
  sweepInMs(nowMs: number): number {
    let next = Number.POSITIVE_INFINITY
    for (const { unswept, sweptMs, maybe } of this.#lanes.values())
      if (unswept && !maybe) next = Math.min(next, sweptMs + this.#sweepMs - nowMs)
    return Math.max(next, 0)
  }

  /** The lanes for which that time has come may hold work. */
  sweep(nowMs: number): void {
    for (const state of this.#lanes.values())
      if (state.unswept && this.#isToSweep(state, nowMs)) state.maybe = true
  }
}

const byBound = (one: LaneState, other: LaneState): number =>
  one.bound === other.bound ? 0 : one.bound - other.bound

const everything = (reads: number) => ({ reads, until: Number.POSITIVE_INFINITY })

/** How many to take of each of the first lanes: what they are known to hold, and what room is left over of the first. */
function shareOut(states: readonly LaneState[], far: number, n: number): number[] {
  const reads: number[] = []
  let left = n
  for (const { bound, depth } of states) {
    if (left === 0 || bound > far || reads.length === lanesMax) break
    const each = Math.min(left, depth)
    reads.push(each)
    left -= each
  }
  return reads.map((each, at) => (at === 0 ? each + left : each))
}

const nothing: Found = { took: 0, last: null, next: null }
const firstId = '00000000-0000-0000-0000-000000000000'
const unread = {
  maybe: true,
  bound: Number.POSITIVE_INFINITY,
  unsure: true,
  from: null,
  depth: depthFirst,
  unswept: false,
  sweptMs: Number.NEGATIVE_INFINITY,
}

/** Not behind what was announced; an announcement names a second, or no place at all. */
function lower(state: LaneState): void {
  if (state.unsure) state.from = null
  else if (state.from && state.bound < state.from.due) state.from = { due: state.bound, id: firstId }
}
