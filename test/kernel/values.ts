import type { Random } from '../testing/random.js'

const keys = ['a', 'é', '😀', '__proto__', 'constructor', 'toJSON', '', ' ', '"', '\\u0000', 'length', '0']
const texts = ['', 'plain', '😀é', '\\u0000', '"\\\n\u2028', '\u0001\u001f', '2024-01-01', 'null', '\ufffd']

/** Any value that JSON can carry. */
export function randomJson(random: Random, depth: number): unknown {
  const kind = depth <= 0 ? random.int(0, 3) : random.int(0, 5)
  if (kind === 0) return random.pick([null, true, false])
  if (kind === 1) return random.pick([0, 1, -1, 0.1, 1e21, 5e-324, 2 ** 53, random.fraction()])
  if (kind <= 3) return random.pick(texts) + random.pick(texts)
  if (kind === 4) return Array.from({ length: random.int(0, 4) }, () => randomJson(random, depth - 1))
  return Object.fromEntries(
    Array.from({ length: random.int(0, 4) }, () => [random.pick(keys), randomJson(random, depth - 1)]),
  )
}

const explode = (): never => {
  throw new Error('touched')
}

const traps = { get: explode, ownKeys: explode, getPrototypeOf: explode, has: explode }

function revoked(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

/** What no JSON holds: each a fresh one. */
const hostile: readonly (() => unknown)[] = [
  () => undefined,
  () => Number.NaN,
  () => Number.NEGATIVE_INFINITY,
  () => -0,
  () => 10n ** 40n,
  () => Symbol('s'),
  () => explode,
  () => 'nul\0nul',
  () => '\ud800 and \udc00',
  () => '\udc00\ud800',
  () => new Date(Number.NaN),
  () => new Date(8.64e15),
  () => new Map([[1, 2]]),
  () => new Set([1]),
  () => Buffer.from('bytes'),
  () => new Float64Array([Number.NaN]),
  () => new Error('out\0er', { cause: new Error('inner') }),
  () => Object.assign(new Error('x'), { message: { toString: explode } }),
  () => new Number(Number.NaN),
  () => new String('a\0'),
  () => Object(5n) as unknown,
  () => ({ toJSON: explode }),
  () => Object.defineProperty({}, 'toJSON', { get: explode }),
  () => Object.defineProperty({ fine: 1 }, 'bad', { get: explode, enumerable: true }),
  () => ({ get [Symbol.toStringTag]() { return explode() } }), // prettier-ignore
  () => ({ [Symbol.toStringTag]: '\0\ud800' }),
  () => new Proxy({}, traps),
  () => new Proxy([], traps),
  () => new Proxy(explode, traps),
  revoked,
  () => Array(4_000_000_000),
  () => Array(5),
  () => Object.create(null) as unknown,
  () => globalThis,
  () => process.versions,
  () => new URL('http://example.com'),
  () => new WeakMap(),
  () => Promise.resolve(1),
  () => 'x'.repeat(3_000),
  () => ({ 'key\0': 1, '\ud800': 2 }),
]

/** Anything at all: JSON with hostile values in its midst, cycles, and towers that are too deep. */
export function randomHostile(random: Random, depth: number): unknown {
  const choice = random.fraction()
  if (depth <= 0 || choice < 0.35) return random.pick(hostile)()
  if (choice < 0.5) return randomJson(random, 2)
  if (choice < 0.55) return tower(random.int(90, 300), random)
  const inner = Array.from({ length: random.int(0, 4) }, () => randomHostile(random, depth - 1))
  if (choice < 0.75) return random.chance(0.2) ? withCycle(inner) : inner
  return Object.fromEntries(inner.map((value) => [random.pick(keys), value]))
}

function withCycle(list: unknown[]): unknown[] {
  list.push({ back: list })
  return list
}

function tower(levels: number, random: Random): unknown {
  let value: unknown = random.pick(hostile)()
  for (let level = 0; level < levels; level++) value = level % 2 ? [value] : { value }
  return value
}
