import { allowsDay, type Fields } from './expression.js'
import { Zone } from './zone.js'

const dayMs = 86_400_000
/** Every expression that is accepted has a day in each calendar year. */
const daysMax = 2 * 366 + 3

/** When the days of one expression come, in one zone. All moments are milliseconds since 1970. */
export interface Times {
  /** The first that is later than this. */
  after(atMs: number): number | null
  /** The last that is earlier than this. */
  before(atMs: number): number | null
}

/**
 * A local time that a day skips comes once, at the first moment after the gap; one that comes twice counts once, the first
 * time. So times that share a moment are one, and the moments of a day rise with its local times, which a search by halves
 * relies on.
 */
export function calendarOf(fields: Fields, zone: string): Times {
  const { seconds, minutes, hours } = fields
  const perDay = hours.length * minutes.length * seconds.length
  const clock = new Zone(zone)
  /** The n-th time of a day. */
  const moment = (day: number, n: number): number => {
    const hour = hours[Math.floor(n / (minutes.length * seconds.length))] as number
    const minute = minutes[Math.floor(n / seconds.length) % minutes.length] as number
    const second = seconds[n % seconds.length] as number
    return clock.instant(day + ((hour * 60 + minute) * 60 + second) * 1_000)
  }
  /** How many times of the day come at the moment or before; `strictly`: before. */
  const count = (day: number, atMs: number, strictly: boolean): number => {
    let [low, high] = [0, perDay]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      const at = moment(day, middle)
      if (at < atMs || (at === atMs && !strictly)) low = middle + 1
      else high = middle
    }
    return low
  }
  const dayOf = (atMs: number): number => Math.floor(clock.local(atMs) / dayMs) * dayMs
  return {
    // From a day earlier: what a gap skipped comes when the date may have changed.
    after(atMs) {
      for (let [day, n] = [dayOf(atMs) - dayMs, 0]; n < daysMax; day += dayMs, n++) {
        if (!allowsDay(fields, day)) continue
        const past = count(day, atMs, false)
        if (past < perDay) return moment(day, past)
      }
      return null
    },
    before(atMs) {
      for (let [day, n] = [dayOf(atMs) + dayMs, 0]; n < daysMax; day -= dayMs, n++) {
        if (!allowsDay(fields, day)) continue
        const past = count(day, atMs, true)
        if (past > 0) return moment(day, past - 1)
      }
      return null
    },
  }
}

/** Every so many milliseconds, counted from a moment. */
export function everyOf(everyMs: number, anchorMs: number): Times {
  return {
    after: (atMs) => anchorMs + (Math.floor((atMs - anchorMs) / everyMs) + 1) * everyMs,
    before: (atMs) => anchorMs + (Math.ceil((atMs - anchorMs) / everyMs) - 1) * everyMs,
  }
}

/** Once. */
export function onceOf(onceMs: number): Times {
  return {
    after: (atMs) => (atMs < onceMs ? onceMs : null),
    before: (atMs) => (atMs > onceMs ? onceMs : null),
  }
}

/** None before the start, none after the end; both may be null. */
export function boundedBy(times: Times, startMs: number | null, endMs: number | null): Times {
  return {
    after(atMs) {
      const at = times.after(startMs === null ? atMs : Math.max(atMs, startMs - 1))
      return at === null || (endMs !== null && at > endMs) ? null : at
    },
    before(atMs) {
      const at = times.before(endMs === null ? atMs : Math.min(atMs, endMs + 1))
      return at === null || (startMs !== null && at < startMs) ? null : at
    },
  }
}
