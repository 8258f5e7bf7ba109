import { expect, test } from 'vitest'
import { encodeForgiving, storable, storableText } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { firstSeed, randomFrom } from '../testing/random.js'
import { randomHostile, randomJson } from './values.js'

const database = useDatabase({ migrated: false })
const limits = { bytesMax: 256_000, depthMax: 100 }

function forgiven(value: unknown): unknown {
  const { json, tooLarge } = encodeForgiving(value, limits)
  expect(tooLarge).toBe(false)
  return JSON.parse(json)
}

function unreadable(key: string): object {
  return Object.defineProperty({ fine: 1 }, key, {
    enumerable: true,
    get: () => {
      throw new Error('touched')
    },
  })
}

class Told {
  readonly x = 1
  toJSON(): unknown {
    return this
  }
}

const cycle: Record<string, unknown> = { a: 1 }
cycle.self = [cycle]

test.each<[what: string, value: unknown, instead: unknown]>([
  ['undefined', undefined, null],
  ['a function', () => 1, null],
  ['text with U+0000 and half a pair', 'a\0b\ud800', 'a\ufffdb\ufffd'],
  ['a key with U+0000', { 'k\0': 1 }, { 'k\ufffd': 1 }],
  ['numbers that JSON has not', [Number.NaN, Number.NEGATIVE_INFINITY], [null, null]],
  ['a BigInt', { id: 10n ** 20n }, { id: '100000000000000000000' }],
  ['a symbol and a function', { s: Symbol('s'), f: () => 1, a: [Symbol('s')] }, { a: [null] }],
  ['a cycle', cycle, { a: 1, self: ['[cycle]'] }],
  ['an Error', { e: new TypeError('bad\0') }, { e: { name: 'TypeError', message: 'bad\ufffd' } }],
  ['a Map', { m: new Map([[1, 2]]) }, { m: '[Map]' }],
  ['a typed array', new Float64Array(10_000_000), '[Float64Array]'],
  ['a boxed value', [new Number(1), new String('a\0')], [1, 'a\ufffd']],
  ['a property that throws', unreadable('bad'), { fine: 1, bad: '[unreadable]' }],
  ['a toJSON that throws', { a: { toJSON: unreadable('x') }, b: 1 }, { a: { toJSON: { fine: 1, x: '[unreadable]' } }, b: 1 }], // prettier-ignore
  ['a toJSON that cannot be read', [unreadable('toJSON'), 1], ['[unreadable]', 1]],
  ['a revoked proxy', { proxy: revoked(), b: 1 }, { proxy: '[unreadable]', b: 1 }],
  ['a Date', [new Date(0), new Date(Number.NaN)], ['1970-01-01T00:00:00.000Z', null]],
  ['an object whose toJSON answers with itself', { a: new Told() }, { a: { x: 1 } }],
  [
    'the key __proto__',
    JSON.parse('{"__proto__":{"admin":true}}'),
    JSON.parse('{"__proto__":{"admin":true}}'),
  ],
])('%s is replaced or kept, and the rest stands', (_, value, instead) => {
  expect(forgiven(value)).toEqual(instead)
})

function revoked(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

test('what is deeper than 100 levels is cut there', () => {
  let value: unknown = 'core'
  for (let level = 0; level < 10_000; level++) value = [value]
  const { json, tooLarge } = encodeForgiving(value, limits)
  expect(tooLarge).toBe(false)
  expect(json).toBe(`${'['.repeat(100)}"[too deep]"${']'.repeat(100)}`)
})

test('the limit is exact: one byte over it, and nothing of the value is kept', () => {
  expect(encodeForgiving('x'.repeat(255_998), limits)).toEqual({
    json: `"${'x'.repeat(255_998)}"`,
    tooLarge: false,
  })
  expect(encodeForgiving('x'.repeat(255_999), limits)).toEqual({ json: 'null', tooLarge: true })
  expect(encodeForgiving('é'.repeat(128_000), limits).tooLarge).toBe(true)
  expect(encodeForgiving('\n'.repeat(128_000), limits).tooLarge).toBe(true)
})

test.each<[what: string, value: () => unknown]>([
  ['10 MB of text', () => 'x'.repeat(10_000_000)],
  ['10 MB in small objects', () => Array.from({ length: 500_000 }, (_, id) => ({ id, name: 'n' }))],
  ['10 MB of bytes', () => Buffer.alloc(10_000_000)],
  ['a sparse array of four billion', () => Array(4_000_000_000)],
  ['an object met on 2^90 paths', shared],
  ['a key of 10 MB', () => ({ ['k'.repeat(10_000_000)]: 1 })],
])('%s is too large, and found so quickly', (_, make) => {
  const value = make()
  const since = performance.now()
  expect(encodeForgiving(value, limits)).toEqual({ json: 'null', tooLarge: true })
  expect(performance.now() - since).toBeLessThan(2_000)
})

function shared(): unknown {
  let value: unknown = 'x'
  for (let level = 0; level < 90; level++) value = [value, value]
  return value
}

test('what is JSON already is not changed', () => {
  const seed = firstSeed()
  const random = randomFrom(seed)
  for (let round = 0; round < 3_000; round++) {
    const value = randomJson(random, 6)
    expect(forgiven(value), `FORGE_TEST_SEED=${seed}, round ${round}`).toEqual(value)
  }
})

test('10,000 hostile values never throw, and PostgreSQL takes what is made of them', async () => {
  const seed = firstSeed()
  const random = randomFrom(seed)
  const small = { bytesMax: 20_000, depthMax: 100 }
  const texts: string[] = []
  for (let round = 0; round < 10_000; round++) {
    const { json } = encodeForgiving(randomHostile(random, 5), small)
    expect(Buffer.byteLength(json), `FORGE_TEST_SEED=${seed}, round ${round}`).toBeLessThanOrEqual(
      small.bytesMax,
    )
    texts.push(json)
  }
  for (let from = 0; from < texts.length; from += 500) {
    const chunk = texts.slice(from, from + 500)
    const taken = await database
      .query<{ n: number }>(
        'SELECT count(v)::int AS n FROM unnest($1::text[]) AS t(x), LATERAL (SELECT x::jsonb AS v) AS c',
        [chunk],
      )
      .catch((error: unknown) => {
        throw new Error(`FORGE_TEST_SEED=${seed}, rounds from ${from}`, { cause: error })
      })
    expect(taken[0]?.n).toBe(chunk.length)
  }
})

test('text is made storable without touching what is sound, and cut to a length', () => {
  expect(storable('😀 sound')).toBe('😀 sound')
  expect(storable('\0\ud800\udc00\udc00')).toBe('\ufffd\ud800\udc00\ufffd')
  expect(storableText('abc', 3)).toBe('abc')
  expect(storableText('abcd', 3)).toBe('ab…')
  expect(storableText('a😀bc', 3)).toBe('a\ufffd…')
  expect(storableText(7, 10)).toBe('7')
  expect(storableText(unreadable('toString'), 20)).toBe('[unreadable]')
  expect(storableText(Symbol('s'), 20)).toBe('Symbol(s)')
  expect(storableText(Object.create(null), 20)).toBe('[unreadable]')
})
