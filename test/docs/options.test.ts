import { describe, expect, it } from 'vitest'
import { createForge } from '../../src/index.js'
import { envName, isSpec, type OptionTable } from '../../src/kernel/index.js'
import { optionTable } from '../../src/options.js'
import { codeOf, page, tableRows } from './pages.js'

const text = page('docs/options.md')

/** The rows that the code would write: name, meaning, default, environment variable. */
function rowsOf(table: OptionTable, prefix = ''): string[][] {
  return Object.entries(table).flatMap(([key, entry]) => {
    const path = prefix + key
    if (!isSpec(entry)) return rowsOf(entry, `${path}.`)
    return [[`\`${path}\``, entry.doc, entry.shows, entry.fromText ? `\`${envName(path)}\`` : '—']]
  })
}

/** The names that the code knows: it lists them when it refuses one that is near to none. */
function namesThatAreKnown(definition: Record<string, unknown>): string[] {
  try {
    createForge().job('docs.names', definition as never)
  } catch (error) {
    return /Known: (.*?)\./.exec(String(error))?.[1]?.split(', ') ?? []
  }
  throw new Error('An unknown name was accepted.')
}

describe('the page about options', () => {
  it('has the row of each option of attach as the code has it, and no other', () => {
    expect(tableRows(text, 'Of attach')).toEqual(rowsOf(optionTable))
  })

  it('has a row for each option of a definition, and no other', () => {
    const names = tableRows(text, 'Of a definition').map(([cell]) => codeOf(cell))
    const known = namesThatAreKnown({ zzzzzzzzzzzz: 1 })
    const retry = namesThatAreKnown({ run: () => null, retry: { zzzzzzzzzzzz: 1 } })
    expect(names.sort()).toEqual([...known, ...retry.map((name) => `retry.${name}`)].sort())
  })
})
