import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { errorCatalogue } from '../../src/kernel/index.js'
import { codeOf, page, root, tableRows } from './pages.js'

const rows = tableRows(page('docs/errors.md'))
const codes = Object.keys(errorCatalogue)

function sources(): string {
  const names = readdirSync(new URL('src/', root), { recursive: true, encoding: 'utf8' })
  const files = names.filter((name) => name.endsWith('.ts') && !name.endsWith('.gen.ts'))
  return files.map((name) => readFileSync(new URL(`src/${name}`, root), 'utf8')).join('\n')
}

describe('the page about errors', () => {
  it('has one row for each code of the catalogue, and no other', () => {
    expect(rows.map(([cell]) => codeOf(cell)).sort()).toEqual([...codes].sort())
  })

  it('says of each what it means and what to do', () => {
    for (const row of rows) {
      expect(row, row[0]).toHaveLength(3)
      for (const cell of row.slice(1)) expect(cell, row[0]).toMatch(/\w{3}.*\.$|`$/)
    }
  })
})

describe('the catalogue of errors', () => {
  it('has no code that nothing throws: its key has no quotes, a use has', () => {
    const text = sources()
    expect(codes.filter((code) => !text.includes(`'${code}'`))).toEqual([])
  })

  it('has a message that ends, for each code', () => {
    for (const [code, message] of Object.entries(errorCatalogue)) expect(message, code).toMatch(/[.)\w]$/)
  })

  it('is all there is: no other code is written anywhere', () => {
    const written = new Set(sources().match(/'FORGE_[A-Z_]+'/g))
    const known = [...written].map((code) => code.slice(1, -1)).filter((code) => !isVariable(code))
    expect(known.filter((code) => !codes.includes(code))).toEqual([])
  })
})

/** Environment variables of options share the prefix. */
function isVariable(name: string): boolean {
  return ['FORGE_SCHEMA'].includes(name)
}
