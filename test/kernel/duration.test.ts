import { expect, test } from 'vitest'
import { durationMs, type ForgeError } from '../../src/kernel/index.js'

test.each([
  [0, 0],
  [1_500, 1_500],
  [1.6, 2],
  ['0ms', 0],
  ['250ms', 250],
  ['30s', 30_000],
  ['5m', 300_000],
  ['2h', 7_200_000],
  ['7d', 604_800_000],
  ['1.5h', 5_400_000],
  ['0.4ms', 0],
  ['3653d', 3_653 * 86_400_000],
])('%j is %d whole milliseconds', (value, ms) => {
  expect(durationMs(value)).toBe(ms)
})

test.each([
  ['text without a unit', '250'],
  ['an unknown unit', '2w'],
  ['an upper-case unit', '2H'],
  ['a space inside', '2 h'],
  ['a space before', ' 2h'],
  ['a line break behind', '2h\n'],
  ['a sign', '-2h'],
  ['an exponent', '1e3s'],
  ['a hexadecimal number', '0x10s'],
  ['digits of another script', '٢h'],
  ['two units', '1h30m'],
  ['only a unit', 's'],
  ['empty text', ''],
  ['endless digits', `${'9'.repeat(100_000)}s`],
  ['more than ten years', '3654d'],
  ['more than ten years as a number', 3_653 * 86_400_000 + 1],
  ['a negative number', -1],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['a BigInt', 5n],
  ['null', null],
  ['undefined', undefined],
  ['an object', { five: 5 }],
])('%s is no duration', (_, value) => {
  expect(() => durationMs(value)).toThrow(expect.objectContaining({ code: 'FORGE_DURATION_INVALID' }))
})

test('the error names the option and shows the value, cut', () => {
  const message = (value: unknown): string => {
    try {
      durationMs(value, 'Option lease.ms')
    } catch (error) {
      return (error as ForgeError).message
    }
    throw new Error('accepted')
  }
  expect(message('soon')).toMatch(/^Option lease\.ms is 'soon'\. A duration is .*'250ms'/)
  expect(message('x'.repeat(1_000)).length).toBeLessThan(250)
  expect(message(Number.NaN)).toContain('is NaN.')
  expect(message({})).toContain('is of type object.')
})
