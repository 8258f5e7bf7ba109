import { expect, test } from 'vitest'
import { type Backoff, backoffMs } from '../../src/kernel/index.js'
import { firstSeed, randomFrom } from '../testing/random.js'

const base = { baseMs: 1_000, maxMs: 300_000, jitter: 0 } as const
const attempts = [1, 2, 3, 4, 9, 10, 1_000, 2 ** 31]

test.each<[Backoff['kind'], number[]]>([
  ['fixed', [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]],
  ['linear', [1_000, 2_000, 3_000, 4_000, 9_000, 10_000, 300_000, 300_000]],
  ['exponential', [1_000, 2_000, 4_000, 8_000, 256_000, 300_000, 300_000, 300_000]],
])('%s', (kind, delays) => {
  expect(attempts.map((attempt) => backoffMs({ ...base, kind }, attempt, 0.5))).toEqual(delays)
})

test('an attempt below the first counts as the first', () => {
  expect(backoffMs({ ...base, kind: 'exponential' }, 0, 0.5)).toBe(1_000)
  expect(backoffMs({ ...base, kind: 'linear' }, -3, 0.5)).toBe(1_000)
})

test('a base over the ceiling is the ceiling', () => {
  expect(backoffMs({ kind: 'fixed', baseMs: 10, maxMs: 5, jitter: 0 }, 1, 0.5)).toBe(5)
})

test('jitter takes its share both ways, at the ceiling too', () => {
  const backoff: Backoff = { ...base, kind: 'exponential', jitter: 0.25 }
  expect([0, 0.5, 1].map((random) => backoffMs(backoff, 1, random))).toEqual([750, 1_000, 1_250])
  expect([0, 0.5, 1].map((random) => backoffMs(backoff, 50, random))).toEqual([225_000, 300_000, 375_000])
})

test('every delay is a whole number within its bounds', () => {
  const seed = firstSeed()
  const random = randomFrom(seed)
  for (let round = 0; round < 5_000; round++) {
    const jitter = random.fraction()
    const kind = random.pick(['fixed', 'linear', 'exponential'] as const)
    const maxMs = random.int(0, 10_000_000)
    const backoff = { kind, baseMs: random.int(0, 100_000), maxMs, jitter }
    const delay = backoffMs(backoff, random.int(1, 5_000), random.fraction())
    expect(Number.isInteger(delay), `FORGE_TEST_SEED=${seed}, round ${round}`).toBe(true)
    expect(delay).toBeGreaterThanOrEqual(0)
    expect(delay).toBeLessThanOrEqual(Math.ceil(maxMs * (1 + jitter)))
  }
})
