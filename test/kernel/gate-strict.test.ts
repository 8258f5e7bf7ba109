import { describe, expect, test } from 'vitest'
import { encodeStrict, type ForgeError, type ForgeErrorCode } from '../../src/kernel/index.js'
import { firstSeed, randomFrom } from '../testing/random.js'
import { randomJson } from './values.js'

const limits = { bytesMax: 1_000_000, depthMax: 100 }

function refusal(value: unknown): { code: ForgeErrorCode; message: string } {
  try {
    encodeStrict(value, limits)
  } catch (error) {
    const { code, message } = error as ForgeError
    return { code, message }
  }
  throw new Error('the gate let it pass')
}

function nested(levels: number): unknown {
  let value: unknown = 'core'
  for (let level = 0; level < levels; level++) value = level % 2 ? { in: value } : [value]
  return value
}

const cycle: Record<string, unknown> = { list: [] }
;(cycle.list as unknown[]).push({ back: cycle })

describe('what JSON or PostgreSQL would lose is refused, with its path', () => {
  test.each<[what: string, value: unknown, path: string, offence: string]>([
    ['U+0000 in text', { a: ['x', 'b\0c'] }, 'input.a[1]', 'U+0000'],
    ['the first half of a surrogate pair', { a: '\ud800x' }, 'input.a', 'surrogate'],
    ['the second half of a surrogate pair', ['\udc00'], 'input[0]', 'surrogate'],
    ['a surrogate pair the wrong way round', '\udc00\ud800', 'input', 'surrogate'],
    ['NaN', { total: Number.NaN }, 'input.total', 'NaN'],
    ['Infinity', [[Number.POSITIVE_INFINITY]], 'input[0][0]', 'Infinity'],
    ['-Infinity', { a: { b: Number.NEGATIVE_INFINITY } }, 'input.a.b', '-Infinity'],
    ['a boxed NaN', { a: new Number(Number.NaN) }, 'input.a', 'NaN'],
    ['a BigInt', { id: 5n }, 'input.id', 'BigInt'],
    ['a boxed BigInt', { id: Object(5n) as unknown }, 'input.id', 'BigInt'],
    ['a function', { run: () => 1 }, 'input.run', 'type function'],
    ['a symbol', [Symbol('s')], 'input[0]', 'type symbol'],
    ['a boxed symbol', [Object(Symbol('s'))], 'input[0]', 'type symbol'],
    ['undefined in an array', { a: [1, undefined] }, 'input.a[1]', 'type undefined'],
    ['a hole in an array', { a: [1, , 3] }, 'input.a[1]', 'type undefined'],
    ['an invalid Date', { at: new Date(Number.NaN) }, 'input.at', 'invalid Date'],
    ['a Map', { m: new Map([[1, 2]]) }, 'input.m', 'a Map'],
    ['a Set', { m: new Set([1]) }, 'input.m', 'a Set'],
    ['an Error', { e: new Error('lost') }, 'input.e', 'a Error'],
    ['a RegExp', /x/, 'input', 'a RegExp'],
    ['a typed array', { a: new Uint8Array(2) }, 'input.a', 'a Uint8Array'],
    ['a Promise', { p: Promise.resolve() }, 'input.p', 'a Promise'],
    ['a cycle', cycle, 'input.list[0].back', 'a cycle'],
    ['a key with U+0000', { a: { 'k\0': 1 } }, 'input.a.k\ufffd', 'a key with U+0000'],
    ['a key with half a surrogate pair', { 'k\ud800': 1 }, 'input.k\ufffd', 'a key with'],
    ['a toJSON that answers with one of these', { a: { toJSON: () => [Number.NaN] } }, 'input.a[0]', 'NaN'],
    ['a toJSON that answers with nothing', { a: { toJSON: () => undefined } }, 'input.a', 'type undefined'],
    ['a Date that a toJSON answers with', { a: { toJSON: () => new Date(0) } }, 'input.a', 'a Date'],
  ])('%s', (_, value, path, offence) => {
    const { code, message } = refusal(value)
    expect(code).toBe('FORGE_INPUT_NOT_JSON')
    expect(message).toContain(`At ${path}: `)
    expect(message).toContain(offence)
  })

  test('a getter or a toJSON that throws, with the error as the cause', () => {
    const fault = new Error('mine')
    const thrown = (): never => {
      throw fault
    }
    for (const value of [
      { a: { toJSON: thrown } },
      Object.defineProperty({}, 'a', { get: thrown, enumerable: true }),
    ]) {
      expect(() => encodeStrict(value, limits)).toThrow(
        expect.objectContaining({ code: 'FORGE_INPUT_NOT_JSON', cause: fault }),
      )
    }
  })

  test('a path that is long or has long keys is shown cut', () => {
    const { message } = refusal({ ['k'.repeat(5_000)]: nestedIn(40, Number.NaN) })
    expect(message.length).toBeLessThan(400)
    expect(message).toContain('…')
  })
})

function nestedIn(levels: number, core: unknown): unknown {
  return levels === 0 ? core : [nestedIn(levels - 1, core)]
}

describe('what JSON can carry passes as JSON.stringify writes it', () => {
  test.each<[what: string, value: unknown, json: string]>([
    ['undefined as the input', undefined, 'null'],
    ['null', null, 'null'],
    ['an undefined property, left out', { a: undefined, b: 1 }, '{"b":1}'],
    ['a Date', { at: new Date(0) }, '{"at":"1970-01-01T00:00:00.000Z"}'],
    ['a Buffer', Buffer.from('a'), '{"type":"Buffer","data":[97]}'],
    ['a surrogate pair', '😀', '"😀"'],
    ['boxed values', [new Number(1), new String('😀'), new Boolean(false)], '[1,"😀",false]'],
    ['an object met twice, not in a cycle', twice(), '{"a":{"x":1},"b":[{"x":1}]}'],
    ['an instance of a class', new (class Point { x = 1 })(), '{"x":1}'], // prettier-ignore
    ['an object without a prototype', Object.assign(Object.create(null), { a: 1 }), '{"a":1}'],
    ['a toJSON that answers with the object itself', new Told((self) => self), '{"a":1}'],
    [
      'a toJSON that answers with a copy that has it too',
      new Told(() => new Told(() => 'asked twice')),
      '{"a":1}',
    ],
    [
      'the smallest and the largest numbers',
      [5e-324, 1.7976931348623157e308],
      '[5e-324,1.7976931348623157e+308]',
    ],
  ])('%s', (_, value, json) => {
    expect(encodeStrict(value, limits)).toBe(json)
  })

  test('__proto__ is a key like any other, and changes no prototype', () => {
    const hostile: unknown = JSON.parse(
      '{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}',
    )
    const json = encodeStrict(hostile, limits)
    expect(json).toBe('{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}')
    expect(({} as { admin?: boolean }).admin).toBeUndefined()
  })

  test('any JSON value comes back equal', () => {
    const seed = firstSeed()
    const random = randomFrom(seed)
    for (let round = 0; round < 3_000; round++) {
      const value = randomJson(random, 6)
      const back: unknown = JSON.parse(encodeStrict(value, limits))
      expect(back, `FORGE_TEST_SEED=${seed}, round ${round}`).toEqual(value)
    }
  })
})

function twice(): unknown {
  const shared = { x: 1 }
  return { a: shared, b: [shared] }
}

/** The answer of a toJSON is not asked again, though it has one too. */
class Told {
  readonly a = 1
  readonly #answer: () => unknown
  constructor(answer: (self: Told) => unknown) {
    this.#answer = () => answer(this)
  }
  toJSON(): unknown {
    return this.#answer()
  }
}

describe('limits', () => {
  test('100 levels pass, 101 do not', () => {
    expect(JSON.parse(encodeStrict(nested(100), limits))).toEqual(nested(100))
    const { code, message } = refusal(nested(101))
    expect(code).toBe('FORGE_INPUT_TOO_DEEP')
    expect(message).toMatch(/^At input(\[0\]|\.in)+…\. /)
  })

  test('exactly 1 MB of JSON passes, one byte more does not', () => {
    expect(encodeStrict('x'.repeat(999_998), limits)).toHaveLength(1_000_000)
    expect(refusal('x'.repeat(999_999)).code).toBe('FORGE_INPUT_TOO_LARGE')
    // Bytes are counted, not characters: é takes two, a line break is written as two.
    expect(encodeStrict('é'.repeat(499_999), limits)).toHaveLength(500_001)
    expect(refusal('é'.repeat(500_000)).message).toContain('takes 1000002 of 1000000 bytes')
    expect(refusal(`é${'x'.repeat(999_997)}`).message).toContain('takes 1000001 of 1000000 bytes')
    expect(refusal('\n'.repeat(500_000)).code).toBe('FORGE_INPUT_TOO_LARGE')
    expect(refusal(Array.from({ length: 600_000 }, () => 1)).code).toBe('FORGE_INPUT_TOO_LARGE')
    expect(refusal({ ['k'.repeat(1_000_000)]: 1 }).code).toBe('FORGE_INPUT_TOO_LARGE')
  })

  test('an object that JSON would write out endlessly often is refused at once', () => {
    let value: unknown = 'x'
    for (let level = 0; level < 90; level++) value = [value, value]
    const since = performance.now()
    expect(refusal(value).code).toBe('FORGE_INPUT_TOO_LARGE')
    expect(performance.now() - since).toBeLessThan(2_000)
  })

  test('a toJSON that goes ever deeper ends at the limit', () => {
    const deeper = { toJSON: () => ({ again: deeper }) }
    expect(refusal(deeper).code).toBe('FORGE_INPUT_TOO_DEEP')
  })
})
