import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { calendarOf } from '../../src/schedules/calendar.js'
import { parseExpression } from '../../src/schedules/expression.js'

/** Written by golden/generate.py from the zone database; see there. */
interface Golden {
  readonly from: string
  readonly to: string
  readonly schedules: readonly string[]
  readonly zones: Readonly<
    Record<
      string,
      {
        /** Of each schedule: how often it fires, and the hash of the moments (seconds since 1970, one per line). */
        readonly totals: readonly (readonly [number, string])[]
        /** When the half-hourly schedule fires in the two hours before and after a change of the offset. */
        readonly changes: Readonly<Record<string, readonly string[]>>
      }
    >
  >
}

const golden = JSON.parse(readFileSync(new URL('golden/zones.json', import.meta.url), 'utf8')) as Golden
const [fromMs, toMs] = [Date.parse(golden.from), Date.parse(golden.to)]
const hourMs = 3_600_000

/** All moments within, in order. */
function moments(expression: string, zone: string, span: readonly [number, number]): number[] {
  const times = calendarOf(parseExpression(expression), zone)
  const found: number[] = []
  for (let at = times.after(span[0] - 1); at !== null && at < span[1]; at = times.after(at)) found.push(at)
  return found
}

const iso = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z')

describe('when schedules fire, from 2024 to 2030', () => {
  it('is known for 40 zones and more', () => {
    expect(Object.keys(golden.zones).length).toBeGreaterThanOrEqual(40)
    expect(toMs - fromMs).toBeGreaterThanOrEqual(7 * 365 * 24 * hourMs)
  })

  describe.each(Object.entries(golden.zones))('in %s', (zone, { totals, changes }) => {
    it.each(golden.schedules.map((expression, at) => [expression, at] as const))(
      'agrees with the zone database: %s',
      (expression, at) => {
        const found = moments(expression, zone, [fromMs, toMs])
        const hash = createHash('sha256').update(found.map((ms) => ms / 1_000).join('\n'))
        expect([found.length, hash.digest('hex').slice(0, 24)]).toEqual(totals[at])
      },
    )

    it('agrees around each change of the clock', () => {
      for (const [change, expected] of Object.entries(changes)) {
        const at = Date.parse(change)
        const found = moments('*/30 * * * *', zone, [at - 2 * hourMs, at + 2 * hourMs + 1])
        expect({ change, found: found.map(iso) }).toEqual({ change, found: expected })
      }
    })
  })
})
