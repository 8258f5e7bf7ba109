import { expect, test } from 'vitest'
import { decodeHints, encodeHints, HintBag } from '../../src/database/hints.js'

const bytesMax = 7_900

test('hints are merged without repeats, in the order in which they came', () => {
  const bag = new HintBag()
  for (const key of ['b', 'a', 'b']) bag.add('ready', [key])
  bag.add('__proto__', ['x'])
  expect(bag.take()).toEqual(
    new Map([
      ['ready', ['b', 'a']],
      ['__proto__', ['x']],
    ]),
  )
  expect(bag.empty).toBe(true)
  expect(bag.take()).toEqual(new Map())
})

test('a topic with too many keys, and too many topics, become a look at everything', () => {
  const bag = new HintBag()
  for (let key = 0; key < 5_000; key += 1) bag.add('ready', [String(key)])
  bag.add('ready', ['one more'])
  expect(bag.take()).toEqual(new Map([['ready', null]]))
  for (let topic = 0; topic < 5_000; topic += 1) bag.add(String(topic), ['key'])
  expect(bag.empty).toBe(false)
  expect(bag.take()).toBeNull()
  expect(bag.empty).toBe(true)
})

test('a message says what it was told', () => {
  const hints = new Map([
    ['ready', ['a', '"\u0000\ud800ü']],
    ['all', null],
    ['__proto__', ['x']],
  ])
  expect(decodeHints(encodeHints('me', hints), 'other')).toEqual(hints)
  expect(decodeHints(encodeHints('me', null), 'other')).toBeNull()
  expect(encodeHints('me', new Map([['ready', ['a']]]))).toBe('{"n":"me","t":{"ready":["a"]}}')
})

test('a message that would be too long loses keys, the longest lists first, and stays below the limit', () => {
  const keys = (count: number): string[] => Array.from({ length: count }, (_, index) => `${index} \u0001ü`)
  const small = ['a', 'b']
  const text = encodeHints(
    'me',
    new Map([
      ['small', small],
      ['large', keys(900)],
      ['larger', keys(950)],
    ]),
  )
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(bytesMax)
  expect(decodeHints(text, 'other')).toEqual(
    new Map([
      ['small', small],
      ['large', null],
      ['larger', null],
    ]),
  )
  for (let count = 250; count < 450; count += 1) {
    expect(Buffer.byteLength(encodeHints('me', new Map([['one', keys(count)]])))).toBeLessThanOrEqual(
      bytesMax,
    )
  }
  expect(decodeHints(encodeHints('me', new Map([['x'.repeat(9_000), null]])), 'other')).toBeNull()
})

test.each([
  'forge:probe',
  '',
  '{"n":"other","t":',
  'null',
  '7',
  '[]',
  '{}',
  '{"n":1,"t":null}',
  '{"n":"other"}',
  '{"n":"other","t":[["a"]]}',
  '{"n":"other","t":"all"}',
  '{"__proto__":{"n":"other","t":null}}',
  '{"n":"me","t":null}',
  '['.repeat(7_999),
])('what is not the message of another node is no hint: %s', (message) => {
  expect(decodeHints(message, 'me')).toBeUndefined()
})

test('topics of a wrong shape are skipped, and the rest of the message counts', () => {
  const message = '{"n":"other","t":{"a":1,"b":[1],"c":{"x":1},"d":["key"],"e":null}}'
  expect(decodeHints(message, 'me')).toEqual(
    new Map([
      ['d', ['key']],
      ['e', null],
    ]),
  )
})
