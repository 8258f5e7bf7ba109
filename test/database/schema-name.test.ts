import { expect, test } from 'vitest'
import { checkSchemaName, quoteSchema } from '../../src/database/index.js'

test.each(['forge', 'a', 'order', 'select', 'user', 'forge_2', 'a__', 'pgx', 'p'.repeat(63)])(
  '%s is a fine name, and is quoted all the same',
  (name) => {
    expect(checkSchemaName(name)).toBe(name)
    expect(quoteSchema(name)).toBe(`"${name}"`)
  },
)

test.each<[what: string, name: unknown]>([
  ['empty text', ''],
  ['64 bytes', 'p'.repeat(64)],
  ['endless text', 'p'.repeat(100_000)],
  ['a name of the system', 'pg_forge'],
  ['pg_ alone', 'pg_'],
  ['upper case', 'Forge'],
  ['a digit first', '1forge'],
  ['an underscore first', '_forge'],
  ['a double quote', 'for"ge'],
  ['an injection', 'forge"; drop schema public cascade; --'],
  ['a single quote', "for'ge"],
  ['a dot', 'forge.job'],
  ['a space', 'for ge'],
  ['a dash', 'for-ge'],
  ['a line break behind', 'forge\n'],
  ['U+0000', 'forge\0'],
  ['letters of another script', 'förge'],
  ['a letter that only looks like one', 'f\u043erge'],
  ['a list', ['forge']],
  ['a number', 7],
  ['null', null],
  ['undefined', undefined],
])('%s is refused', (_, name) => {
  for (const check of [checkSchemaName, quoteSchema as (name: unknown) => string]) {
    expect(() => check(name)).toThrow(expect.objectContaining({ code: 'FORGE_SCHEMA_NAME_INVALID' }))
  }
})

test('the error shows the name, cut', () => {
  expect(() => checkSchemaName('X'.repeat(10_000))).toThrow(/^The schema name is 'X{70}'\. A schema name is/)
  expect(() => checkSchemaName({})).toThrow('is of type object.')
})
