import { expect, test } from 'vitest'
import { idFactory, isUuid, randomId } from '../../src/kernel/index.js'

/** What RFC 9562 puts into a version 7 UUID. */
function parts(id: string): { ms: number; version: string; counter: number; variant: number } {
  const hex = id.replaceAll('-', '')
  return {
    ms: Number.parseInt(hex.slice(0, 12), 16),
    version: hex.slice(12, 13),
    counter: Number.parseInt(hex.slice(13, 16), 16),
    variant: Number.parseInt(hex.slice(16, 17), 16) >> 2,
  }
}

const now = 1_750_000_000_123

/** Where an id is not above the one before it; -1: nowhere. */
function firstFall(ids: readonly string[]): number {
  return ids.findIndex((id, index) => index > 0 && id <= (ids[index - 1] as string))
}

test('an id is a version 7 UUID of the moment that the clock names', () => {
  const id = idFactory(() => now)()
  expect(isUuid(id)).toBe(true)
  expect(parts(id)).toEqual({ ms: now, version: '7', counter: 0, variant: 0b10 })
})

test('100,000 ids of one process are unique and rise, more of them in a millisecond than the counter holds too', () => {
  let calls = 0
  const next = idFactory(() => now + Math.floor(calls++ / 30_000))
  const ids = Array.from({ length: 100_000 }, next)
  expect(new Set(ids).size).toBe(100_000)
  expect(firstFall(ids)).toBe(-1)
  expect(ids.every((id) => isUuid(id) && parts(id).version === '7' && parts(id).variant === 0b10)).toBe(true)
})

test('ids go on rising when the clock steps back, and follow it when it has caught up', () => {
  let ms = now
  const next = idFactory(() => ms)
  const ids = [next(), next()]
  ms = now - 3_600_000
  ids.push(...Array.from({ length: 5_000 }, next))
  ms = now + 60_000
  ids.push(next())
  expect(firstFall(ids)).toBe(-1)
  expect(new Set(ids).size).toBe(ids.length)
  expect(parts(ids.at(-1) as string)).toMatchObject({ ms: now + 60_000, counter: 0 })
})

test('two processes with the same clock make different ids', () => {
  const [one, other] = [idFactory(() => now), idFactory(() => now)]
  const ids = Array.from({ length: 20_000 }, () => [one(), other()]).flat()
  expect(new Set(ids).size).toBe(40_000)
})

test('a random id is a UUID, each another', () => {
  const ids = Array.from({ length: 1_000 }, randomId)
  expect(ids.every(isUuid)).toBe(true)
  expect(new Set(ids).size).toBe(1_000)
})

test.each([
  '',
  'x',
  7,
  null,
  '018f0000-0000-7000-8000-00000000000',
  '018f0000-0000-7000-8000-0000000000000',
  '018f0000-0000-7000-8000-00000000000g',
  '018f0000000070008000000000000000',
  '{018f0000-0000-7000-8000-000000000000}',
  '018f0000-0000-7000-8000-000000000000\n',
])('%j is no UUID', (value) => {
  expect(isUuid(value)).toBe(false)
})
