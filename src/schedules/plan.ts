import { createHash } from 'node:crypto'
import { type ScheduleSpec, timesOf } from './spec.js'

/** Later than this a tick counts as missed. Leaders change within 10 s. */
const onTimeMs = 15_000
/** Of ticks that are missed and do not fire, so many are written down, the latest. */
const recordedMax = 100
/** In one go; what is left comes with the next look. */
const ticksMax = 1_000

/** What stands in the table of a schedule that is due. */
export interface DueSchedule {
  readonly name: string
  readonly spec: ScheduleSpec
  /** Planned time of the next tick, or, while `planned` is false, the moment from which on to look for it. */
  readonly nextMs: number
  readonly planned: boolean
  readonly lastMs: number | null
}

export interface PlannedTick {
  readonly atMs: number
  /** When its job is to run; null: at once. */
  readonly runAtMs: number | null
  /** Written down, and no job made. */
  readonly missed: boolean
}

/** What is to be done for a schedule. */
export interface Plan {
  readonly ticks: readonly PlannedTick[]
  /** Null: it never fires again. */
  readonly nextMs: number | null
}

/**
 * Which ticks fire now (milliseconds since 1970, by the clock of the database), and when the schedule is due again. All that
 * are on time fire. Of those before, the policy says which: none, the last, or all of them, the latest up to its limit.
 */
export function planTicks(schedule: DueSchedule, nowMs: number): Plan {
  const { name, spec } = schedule
  const times = timesOf(spec)
  const first = firstOf(schedule)
  if (first === null || first > nowMs) return { ticks: [], nextMs: first }
  const onTime: number[] = []
  let next: number | null = times.after(Math.max(first - 1, nowMs - onTimeMs - 1))
  while (next !== null && next <= nowMs && onTime.length < ticksMax) {
    onTime.push(next)
    next = times.after(next)
  }
  const ticks = [
    ...missedOf(spec, { first, beforeMs: nowMs - onTimeMs, nowMs }),
    ...onTime.map((atMs) => ({ atMs, missed: false })),
  ]
  return { ticks: ticks.map((tick) => ({ ...tick, runAtMs: runAt(name, spec, tick.atMs) })), nextMs: next }
}

function firstOf({ spec, nextMs, planned, lastMs }: DueSchedule): number | null {
  if (planned) return nextMs
  // A single date is due from the day it is written down, however late that is.
  if ('atMs' in spec.rule) return lastMs !== null && lastMs >= spec.rule.atMs ? null : spec.rule.atMs
  return timesOf(spec).after(Math.max(nextMs - 1, lastMs ?? Number.NEGATIVE_INFINITY))
}

interface Span {
  readonly first: number
  readonly beforeMs: number
  readonly nowMs: number
}

function missedOf(spec: ScheduleSpec, { first, beforeMs, nowMs }: Span): Omit<PlannedTick, 'runAtMs'>[] {
  const times = timesOf(spec)
  const firing = { none: 0, last: 1, all: spec.limit }[spec.missed]
  const oldestMs = spec.windowMs === null ? Number.NEGATIVE_INFINITY : nowMs - spec.windowMs
  const found: Omit<PlannedTick, 'runAtMs'>[] = []
  let recorded = 0
  let fired = 0
  for (let at = times.before(beforeMs); at !== null && at >= first; at = times.before(at)) {
    const missed = fired >= firing || at < oldestMs
    if (missed && recorded === recordedMax) break
    if (missed) recorded += 1
    else fired += 1
    found.push({ atMs: at, missed })
  }
  return found.reverse()
}

/** The same whoever works it out: a tick that is tried twice is due at the same time. */
function runAt(name: string, { jitterMs }: ScheduleSpec, atMs: number): number | null {
  if (jitterMs === 0) return null
  const share = createHash('sha256').update(`${name}@${atMs}`).digest().readUInt32BE() / 2 ** 32
  return atMs + Math.floor(share * (jitterMs + 1))
}
