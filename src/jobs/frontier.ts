import {
  beginReading,
  endReading,
  forgetReading,
  type Found,
  type LaneState,
  newLane,
  type Reading,
  type ServedLane,
  wake,
} from './lane-state.js'

/** How the lanes of one queue are read in a claim that takes `n` of its jobs at most. */
export interface Plan {
  readonly queue: string
  readonly readings: readonly Reading[]
  readonly n: number
  /** The due of the most urgent job that is known (epoch seconds); Infinity: none is. */
  readonly first: number
}

/**
 * Jobs of one queue start in the order of their due, exact to this many seconds between lanes: half a step of priority,
 * so that of two jobs that came at the same time the more urgent is the first.
 */
const slackMin = 3
/**
 * Lanes may turn out to be shorter than they were: the room is shared out so many times, and a claim ends when it is full.
 * More often where those of the last claim were: at the end of a backlog many lanes hold a few jobs each.
 */
const sharesOfRoom = 2
/** In one claim. */
const lanesMax = 100
/** Lanes whose turn has not come and that are swept in passing. */
const looksMax = 4
/** A sweep takes at most a twentieth of the time. */
const sweepShare = 20
const sweepMsMin = 25
const sweepMsMax = 5_000

/**
 * Which lanes may hold work, and from where to read them. Claimed rows leave dead entries at the front of the index
 * until a vacuum, or for as long as an old snapshot is held; a claim that starts behind the last claimed position does
 * not walk them. What comes in before that position (more urgent, put back, committed late) is told by its wake-up, or
 * found by a sweep from the start, which takes a twentieth of the time at most.
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
  /** By queue: how many times more the lanes of the last claim were known to hold than they held. */
  readonly #excess = new Map<string, number>()
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
        return [lane.id, { ...(old.get(lane.id) ?? newLane), lane }]
      }),
    )
  }

  /** Work may have come up in these lanes (null: in all), at this due (epoch seconds) or later; null: anywhere. */
  wake(lanes: Iterable<number> | null, due: number | null): void {
    for (const id of lanes ?? this.#lanes.keys()) {
      const state = this.#lanes.get(id)
      if (state) wake(state, due)
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
    const room = n * sharesOfRoom * (this.#excess.get(queue) ?? 1)
    const { reads, until } = shareOut(states, { far, n, room })
    const readings = reads.map((each, at) =>
      this.#reading(states[at] as LaneState, { reads: each, until }, nowMs),
    )
    const others = states.slice(reads.length)
    const looks = [
      ...others.filter(({ unsure }) => unsure).slice(0, lanesMax),
      ...this.#overdue(others, nowMs),
    ]
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
    return beginReading(state, take, this.#isToSweep(state, nowMs) ? nowMs : null)
  }

  #isToSweep({ sweptMs }: LaneState, nowMs: number): boolean {
    return nowMs - sweptMs >= this.#sweepMs
  }

  /** What a claim brought, of each lane: it took them in their order, until it was full. */
  read({ queue, n, first, readings }: Plan, found: ReadonlyMap<number, Omit<Found, 'cut'>>): void {
    const each = readings.map((reading) => ({ reading, ...(found.get(reading.lane.id) ?? nothing) }))
    const room = n - each.reduce((sum, { took }) => sum + took, 0)
    const end = room > 0 ? each.length : each.findLastIndex(({ took }) => took > 0)
    /** The last due that was taken at all, and the first behind which a lane may hold more than was taken of it. */
    let last = Number.NEGATIVE_INFINITY
    let behind = Number.POSITIVE_INFINITY
    let known = 0
    for (const [at, { reading, ...one }] of each.entries()) {
      const state = this.#lanes.get(reading.lane.id)
      if (!state) continue
      const reached = at <= end || reading.reads === 0
      if (reached) endReading(state, reading, { ...one, cut: at === end })
      else forgetReading(state, reading)
      if (reached) known += at === end ? one.took : reading.reads
      last = Math.max(last, one.last?.due ?? last)
      if (reading.reads > 0 && one.took >= reading.reads) behind = Math.min(behind, one.last?.due ?? behind)
    }
    this.#excess.set(queue, Math.max(1, known / Math.max(1, n - room)))
    if (last > behind + slackMin) this.#slack.set(queue, slackMin)
    else if (room > 0 && behind === Number.POSITIVE_INFINITY) this.#reach(queue, first)
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

  /** A trip failed: what it was to read is still unread. */
  unread(readings: readonly Reading[]): void {
    for (const reading of readings) {
      const state = this.#lanes.get(reading.lane.id)
      if (state) forgetReading(state, reading)
    }
  }

  /** A trip took so long. If it read a lane from its start, that is what sweeps keep their distance by. */
  took(ms: number, plans: readonly Plan[]): void {
    const swept = plans.some(({ readings }) => readings.some(({ from }) => from === null))
    if (!swept) return
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

/**
 * How many to take of each of the first lanes, and up to which due: as many as they are known to hold, and what room is
 * left over of the first. Behind those that would fill the claim come some more, in case they do not; of them it takes
 * nothing that is due later.
 */
function shareOut(
  states: readonly LaneState[],
  { far, n, room }: { readonly far: number; readonly n: number; readonly room: number },
): { reads: number[]; until: number } {
  const reads: number[] = []
  let left = n
  let until = far
  for (const { bound, depth } of states) {
    if (reads.length === lanesMax || left <= n - room || bound > until) break
    // The first that does not fit bounds what the others give.
    if (left <= 0) until = Math.min(until, bound + slackMin)
    reads.push(Math.min(n, depth))
    left -= depth
  }
  const [others, unsure] = [states.slice(reads.length), states.some((state) => state.unsure)]
  const beyond = (others[0]?.bound ?? Number.POSITIVE_INFINITY) + slackMin
  // What is read alone, and beside nothing unknown, comes in its own order as far as the next lane begins.
  if (reads.length === 1 && !unsure) until = beyond
  if (left > 0) reads[0] = Math.min(n, (reads[0] ?? 0) + left)
  return { reads, until: Math.min(until, beyond) }
}

const nothing = { took: 0, last: null, next: null }
