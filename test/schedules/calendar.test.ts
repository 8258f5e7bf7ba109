import { describe, expect, it } from 'vitest'
import { calendarOf, type Times } from '../../src/schedules/calendar.js'
import { parseExpression } from '../../src/schedules/expression.js'
import { localOf } from '../../src/schedules/zone.js'

const dayMs = 86_400_000
const iso = (ms: number | null): string | null =>
  ms === null ? null : new Date(ms).toISOString().replace(':00.000Z', 'Z')

function first(times: Times, from: string, n: number): (string | null)[] {
  const found: (string | null)[] = []
  let at: number | null = Date.parse(from)
  while (found.length < n && at !== null) {
    at = times.after(at)
    found.push(iso(at))
  }
  return found
}

/** A small generator of numbers that can be repeated from its seed. */
function numbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

describe('a change of the clock', () => {
  const berlin = (expression: string): Times => calendarOf(parseExpression(expression), 'Europe/Berlin')

  it('that skips a local time fires it once, at the first moment after the gap', () => {
    // On 29 March 2026 clocks go from 02:00 to 03:00, at 01:00 UTC.
    expect(first(berlin('30 2 * * *'), '2026-03-28T12:00Z', 2)).toEqual([
      '2026-03-29T01:00Z',
      '2026-03-30T00:30Z',
    ])
    expect(first(berlin('0,15,30,45 2 * * *'), '2026-03-28T12:00Z', 2)).toEqual([
      '2026-03-29T01:00Z',
      '2026-03-30T00:00Z',
    ])
  })

  it('that repeats a local time fires it once, the first time', () => {
    // On 25 October 2026 clocks go from 03:00 back to 02:00, at 01:00 UTC.
    expect(first(berlin('30 2 * * *'), '2026-10-24T12:00Z', 2)).toEqual([
      '2026-10-25T00:30Z',
      '2026-10-26T01:30Z',
    ])
    expect(first(berlin('0 * * * *'), '2026-10-24T23:30Z', 3)).toEqual([
      '2026-10-25T00:00Z',
      // 03:00: the second 02:00 was skipped.
      '2026-10-25T02:00Z',
      '2026-10-25T03:00Z',
    ])
  })
})

describe('the moments of any expression in any zone', () => {
  const zones = Intl.supportedValuesOf('timeZone')
  const minutes = ['0', '30', '*/20', '7,37', '59']
  const hours = ['*', '0', '2', '1-3', '*/5', '23', '0,2']
  const days = ['* *', '1 *', '*/3 *', '31 *', '15-20 MAR,OCT']
  const weekdays = ['*', 'SUN', 'MON-FRI', '*/2']

  it('rise strictly, come the same forwards and backwards, and show what the expression says', () => {
    const pick = numbers(20_261_128)
    const one = <T>(list: readonly T[]): T => list[pick(list.length)] as T
    for (let n = 0; n < 400; n++) {
      const [expression, zone] = [`${one(minutes)} ${one(hours)} ${one(days)} ${one(weekdays)}`, one(zones)]
      const fields = parseExpression(expression)
      const times = calendarOf(fields, zone)
      const from = Date.UTC(2024, 0, 1) + pick(7 * 365) * dayMs + pick(86_400) * 1_000
      const found: number[] = []
      for (let at = times.after(from); at !== null && found.length < 40; at = times.after(at)) found.push(at)
      const label = `${expression} in ${zone} from ${new Date(from).toISOString()}`
      expect(found, label).toHaveLength(40)
      expect(
        [...found].sort((a, b) => a - b),
        label,
      ).toEqual([...new Set(found)])
      const back: number[] = []
      for (
        let at = times.before((found.at(-1) as number) + 1);
        at !== null && at > from;
        at = times.before(at)
      )
        back.push(at)
      expect(back.reverse(), label).toEqual(found)
      for (const at of found) {
        const local = new Date(localOf(zone, at))
        const shows =
          fields.minutes.includes(local.getUTCMinutes()) && fields.hours.includes(local.getUTCHours())
        // Else it is the moment of a jump over such a time.
        if (!shows) expect(localOf(zone, at) - localOf(zone, at - 1_000), label).toBeGreaterThan(1_000)
      }
    }
  })

  it('of a daily time come once on each local day, in every zone', () => {
    const pick = numbers(7)
    for (const zone of zones) {
      const times = calendarOf(parseExpression(`${pick(60)} ${pick(4)} * * *`), zone)
      const year = Date.UTC(2024 + pick(7), 0, 1)
      const seen: number[] = []
      for (let at = times.after(year); at !== null && at < year + 366 * dayMs; at = times.after(at))
        seen.push(Math.floor(localOf(zone, at) / dayMs))
      expect(seen.length, zone).toBeGreaterThanOrEqual(365)
      for (const [n, day] of seen.entries()) if (n > 0) expect(day - (seen[n - 1] as number), zone).toBe(1)
    }
  })
})
