import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const read = (file: string) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8')
const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string> | undefined>
const names = (field: string) => Object.keys(manifest[field] ?? {})
const rows = [...read('docs/dependencies.md').matchAll(/^\| `([^`]+)` \|(.*)\|$/gm)]

describe('the page about dependencies', () => {
  it('has one line for each runtime dependency and peer, and for nothing else', () => {
    const declared = ['dependencies', 'optionalDependencies', 'peerDependencies'].flatMap(names)
    expect(rows.map(([, name]) => name).sort()).toEqual(declared.sort())
  })

  it('says of each why it is there, who keeps it and what follows if nobody does', () => {
    for (const [, name, cells = ''] of rows) {
      const filled = cells.split('|').filter((cell) => cell.trim().length > 10)
      expect(filled, name).toHaveLength(3)
    }
  })

  it('has at most 12 runtime dependencies to speak of', () => {
    expect([...names('dependencies'), ...names('optionalDependencies')].length).toBeLessThanOrEqual(12)
  })
})
