import { describe, expect, it } from 'vitest'
import { isForgeError } from '../../src/index.js'
import { parseExpression } from '../../src/schedules/expression.js'

function refusal(expression: string): string {
  try {
    parseExpression(expression)
  } catch (error) {
    if (isForgeError(error, 'FORGE_CRON_INVALID')) return error.message
    throw error
  }
  throw new Error(`'${expression}' was taken`)
}

const range = (from: number, to: number, step = 1): number[] =>
  Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, n) => from + n * step)

describe('an expression', () => {
  it('of five fields fires at the full minute, of six at its seconds', () => {
    expect(parseExpression('5 4 * * *')).toMatchObject({ seconds: [0], minutes: [5], hours: [4] })
    expect(parseExpression('*/20 5 4 * * *')).toMatchObject({
      seconds: [0, 20, 40],
      minutes: [5],
      hours: [4],
    })
  })

  it('takes lists, ranges, steps and names in any case', () => {
    expect(parseExpression('0,30 9-17/4 1-7 JAN,mar-May mon-Fri')).toEqual({
      seconds: [0],
      minutes: [0, 30],
      hours: [9, 13, 17],
      days: new Set(range(1, 7)),
      months: new Set([1, 3, 4, 5]),
      weekdays: new Set(range(1, 5)),
      either: true,
    })
  })

  it('takes a value that is there twice', () => {
    expect(parseExpression('1,1,0-2 * * * MON-FRI,WED')).toMatchObject({ minutes: [0, 1, 2] })
  })

  it('knows Sunday as 0 and as 7', () => {
    for (const text of ['0 0 * * 0', '0 0 * * 7', '0 0 * * sun'])
      expect(parseExpression(text).weekdays).toEqual(new Set([0]))
    expect(parseExpression('0 0 * * 5-7').weekdays).toEqual(new Set([5, 6, 0]))
  })

  it('fires on either of day and weekday where both are restricted, on both where one begins with a star', () => {
    expect(parseExpression('0 0 13 * FRI').either).toBe(true)
    expect(parseExpression('0 0 */2 * FRI').either).toBe(false)
    expect(parseExpression('0 0 13 * *').either).toBe(false)
  })

  it.each([
    ['@hourly', { minutes: [0], hours: range(0, 23) }],
    ['@daily', { minutes: [0], hours: [0], days: new Set(range(1, 31)) }],
    ['@midnight', { minutes: [0], hours: [0] }],
    ['@weekly', { weekdays: new Set([0]) }],
    ['@monthly', { days: new Set([1]) }],
    ['@yearly', { days: new Set([1]), months: new Set([1]) }],
    ['@Annually', { days: new Set([1]), months: new Set([1]) }],
  ])('knows the shorthand %s', (text, fields) => {
    expect(parseExpression(text)).toMatchObject(fields)
  })

  it.each([
    ['61 * * * *', 'position 1 (minute)'],
    ['0 24 * * *', 'position 3 (hour)'],
    ['0 0 0 * *', 'position 5 (day of the month)'],
    ['0 0 1 13 *', 'position 7 (month)'],
    ['0 0 * * 8', 'position 9 (weekday)'],
    ['0 0 * * MOO', "position 9 (weekday): 'MOO' is none of"],
    ['0 5,x,7 * * *', "position 5 (hour): 'x' is none of"],
    ['0 17-9 * * *', 'position 3 (hour)'],
    ['*/0 * * * *', 'position 1 (minute): a step of 0'],
    ['*/90 * * * *', 'for a fixed distance use { every }'],
    ['0 1, * * *', "position 5 (hour): ''"],
    ['0 -1 * * *', 'position 3 (hour)'],
    ['0 0 L * *', 'position 5 (day of the month)'],
    ['0 0 ? * MON#2', 'position 5 (day of the month)'],
    ['0 MON * * *', 'position 3 (hour)'],
    ['99 0 0 * * *', 'position 1 (second)'],
    ['   0   77 * * *', 'position 8 (hour)'],
  ])('says where %s is wrong', (text, part) => {
    expect(refusal(text)).toContain(part)
  })

  it.each([
    ['', '0 fields'],
    ['* * * *', '4 fields'],
    ['* * * * * * *', '7 fields'],
    ['@reboot', 'no shorthand'],
    ['@dayly', 'no shorthand'],
    ['"; drop --', 'fields'],
  ])('refuses %j', (text, part) => {
    expect(refusal(text)).toContain(part)
  })

  it.each(['0 0 31 2 *', '0 0 30 FEB *', '0 0 31 4,6,9,11 *'])(
    'refuses a date that no calendar has: %s',
    (text) => {
      expect(refusal(text)).toContain('names a date that no calendar has')
    },
  )

  it('refuses silence of a year and longer, whatever year it is now', () => {
    expect(refusal('0 0 29 2 *')).toContain('silent for a year and longer (2025')
    expect(refusal('0 0 1 1 */8')).toContain('a step of 8 is out of range')
    // Either one is enough: the first of January, or any Monday of it.
    expect(parseExpression('0 0 1 1 MON').either).toBe(true)
  })

  it('refuses more than 256 characters, and reads 256 within 10 ms', () => {
    const long = `${Array.from({ length: 200 }, () => '1').join(',')} * * * *`
    expect(long.length).toBeGreaterThan(256)
    expect(refusal(long)).toContain(`${long.length} characters long; the limit is 256`)
    expect(refusal('1'.repeat(200_000))).toContain('200000 characters long')
    const short = `${Array.from({ length: 124 }, () => '1').join(',')} * * * *`
    parseExpression(short)
    const since = performance.now()
    for (let n = 0; n < 10; n++) parseExpression(short)
    // Measured 0.2 ms each.
    expect((performance.now() - since) / 10).toBeLessThan(10)
  })
})
