import { expect, test } from 'vitest'
import { DueGuess } from '../../src/jobs/due-guess.js'
import { manualClock } from '../kernel/manual-clock.js'

test('a due is guessed by the last one of its priority and what our clock says has passed', () => {
  const { clock, advance } = manualClock()
  const dues = new DueGuess(clock)
  expect(dues.guess(50)).toBeNull()
  expect(dues.heard(50, 1_700_000_300_250)).toBe(1_700_000_300.25)
  expect(dues.guess(50)).toBe(1_700_000_300.25)
  expect(dues.guess(90)).toBeNull()
  advance(1_500)
  expect(dues.guess(50)).toBeCloseTo(1_700_000_301.75, 3)
  // The server's clock was put back: one guess is wrong, the next is not.
  dues.heard(50, 1_699_999_000_000)
  dues.heard(90, 1_699_998_760_000)
  advance(10)
  expect(dues.guess(50)).toBeCloseTo(1_699_999_000.01, 3)
  expect(dues.guess(90)).toBeCloseTo(1_699_998_760.01, 3)
})
