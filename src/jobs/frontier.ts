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
  readonly reads: number
  /** Null: from the start. */
  readonly from: Position | null
}

/** How the lanes of one queue are read in a claim that takes `n` of its jobs at most. */
export interface Plan {
  readonly readings: readonly Reading[]
  readonly n: number
}

interface LaneState {
  readonly lane: ServedLane
  /** It may hold work that was not claimed. */
  maybe: boolean
  /** What stands before this was claimed, or is found by the next sweep. */
  from: Position | null
  /** The lowest due that was announced since it was last read. */
  announced: number
  /** It was read from a position since the last sweep. */
  unswept: boolean
  sweptMs: number
}

/** Lanes that share a queue are read four deep at least, and together about twice as deep as is taken. */
const readsMin = 4
/** A sweep takes at most a twentieth of the time. */
const sweepShare = 20
const sweepMsMin = 25
const sweepMsMax = 1_000

/**
 * Which lanes may hold work, and from where to read them. Claimed rows leave dead entries at the front of the index
 * until a vacuum, or for as long as an old snapshot is held; a claim that starts behind the last claimed position does
 * not walk them. What comes in before that position (more urgent, put back, committed late) is told by its wake-up, or
 * found by a sweep from the start, at most every 20 times the time that a trip takes.
 */
export class Frontier {
  #lanes = new Map<number, LaneState>()
  #sweepMs = sweepMsMin

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
      state.announced = Math.min(state.announced, due ?? Number.NEGATIVE_INFINITY)
      lower(state)
    }
  }

  /** Queues with lanes that may hold work. */
  hungry(): Set<string> {
    const queues = new Set<string>()
    for (const { maybe, lane } of this.#lanes.values()) if (maybe) queues.add(lane.queue)
    return queues
  }

  /**
   * How to read the lanes of one queue, of which `n` jobs are wanted: all that may hold work, however many, since any of
   * them may hold the most urgent.
   */
  plan(queue: string, n: number, nowMs: number): Plan {
    const states = [...this.#lanes.values()].filter(({ maybe, lane }) => maybe && lane.queue === queue)
    const reads = states.length > 1 ? Math.max(readsMin, Math.ceil((2 * n) / states.length)) : n
    const readings = states.map((state) => {
      const sweeps = this.#isToSweep(state, nowMs)
      state.maybe = false
      state.announced = Number.POSITIVE_INFINITY
      state.unswept = !sweeps && (state.unswept || state.from !== null)
      if (sweeps) state.sweptMs = nowMs
      return { lane: state.lane, reads, from: sweeps ? null : state.from }
    })
    return { readings, n }
  }

  #isToSweep({ sweptMs }: LaneState, nowMs: number): boolean {
    return nowMs - sweptMs >= this.#sweepMs
  }

  /** What a reading brought: whether the lane was read to its end, and the last position taken. */
  read(reading: Reading, exhausted: boolean, last: Position | null): void {
    const state = this.#lanes.get(reading.lane.id)
    if (!state) return
    if (!exhausted) state.maybe = true
    // Also after a sweep that took its fill before the old position: the way between is still to be read.
    if (last) state.from = last
    lower(state)
  }

  /**
   * All that a reading saw was locked by others, and it did not see everything: what may lie behind is read with the next
   * sweep, since those who hold the locks may take one of them each.
   */
  passedOver({ lane }: Reading): void {
    const state = this.#lanes.get(lane.id)
    if (state) state.unswept = true
  }

  /** A trip failed: what it was to read is still unread. */
  unread(readings: readonly Reading[]): void {
    for (const { lane } of readings) {
      const state = this.#lanes.get(lane.id)
      if (state) state.maybe = true
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

const firstId = '00000000-0000-0000-0000-000000000000'
const unread = {
  maybe: true,
  from: null,
  announced: Number.POSITIVE_INFINITY,
  unswept: false,
  sweptMs: Number.NEGATIVE_INFINITY,
}

/** Not behind what was announced; an announcement names a second, or no time at all. */
function lower(state: LaneState): void {
  if (!state.from || state.announced >= state.from.due) return
  const { announced: due } = state
  state.from = Number.isFinite(due) ? { due, id: firstId } : null
}
