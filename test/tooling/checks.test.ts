import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { lockFaults } from './check-lock.mjs'
import { contentFaults, importFaults } from './check-package.mjs'
import { renderMigrations } from './embed-migrations.mjs'

describe('the check of the lockfile', () => {
  const faultsOf = (packages: Record<string, object>) => lockFaults(JSON.stringify({ packages }))
  const integrity = 'sha512-x'

  it('finds optional packages in the own folder and in those above', () => {
    const optionalDependencies = { 'tool-linux': '1' }
    const above = { 'node_modules/tool-linux': { integrity } }
    const own = { 'node_modules/a/node_modules/tool/node_modules/tool-linux': { integrity } }
    const tool = { 'node_modules/a/node_modules/tool': { optionalDependencies, integrity } }
    expect(faultsOf({ ...tool, ...above })).toEqual([])
    expect(faultsOf({ ...tool, ...own })).toEqual([])
  })

  it('fires on a platform package that has no entry', () => {
    const tool = { optionalDependencies: { '@tool/linux-x64-musl': '1' }, integrity }
    const elsewhere = { 'node_modules/b/node_modules/@tool/linux-x64-musl': { integrity } }
    expect(faultsOf({ 'node_modules/tool': tool, ...elsewhere })).toEqual([
      'node_modules/tool: optional dependency @tool/linux-x64-musl has no entry',
    ])
  })

  it('fires on an address, on a path of one machine and on a missing checksum', () => {
    expect(
      faultsOf({ 'node_modules/a': { resolved: 'https://example.invalid/a.tgz', integrity } }),
    ).toHaveLength(1)
    expect(faultsOf({ '': { dependencies: { a: 'file:../a' } } })).toHaveLength(1)
    expect(faultsOf({ 'node_modules/a': { version: '1.0.0' } })).toHaveLength(1)
  })
})

describe('the check of the package', () => {
  const manifest = {
    main: './dist/index.cjs',
    exports: { '.': './dist/index.js' },
    dependencies: { '@scope/own': '1' },
    peerDependencies: { pg: '8' },
    devDependencies: { zod: '4' },
  }

  it('lets built files import dependencies and peers, and types only dependencies', () => {
    const contents = {
      'dist/index.js': `import a from '@scope/own/deep'\nimport pg from 'pg'\nimport fs from 'node:fs'\nimport './chunk.js'`,
      'dist/index.cjs': `const a = require('@scope/own')`,
      'dist/index.d.ts': `import { A } from '@scope/own'`,
    }
    expect(importFaults(manifest, contents)).toEqual([])
    const typed = { ...manifest, peerDependencies: { pg: '8', '@types/pg': '8' } }
    expect(importFaults(typed, { 'dist/index.d.ts': `import { Pool } from 'pg'` })).toEqual([])
  })

  it.each([
    ['dist/index.js', `import { z } from 'zod'`],
    ['dist/index.js', `export * from 'zod'`],
    ['dist/index.js', `const z = await import('zod')`],
    ['dist/index.cjs', `const z = require('zod')`],
    ['dist/index.d.ts', `import { Pool } from 'pg'`],
    ['dist/index.d.cts', `export declare const pool: import('pg').Pool`],
  ])('fires on what a user may not have: %s with %s', (file, text) => {
    expect(importFaults(manifest, { [file]: text })).toHaveLength(1)
  })

  it('fires on a target that is missing and on sources in the package', () => {
    const files = ['dist/index.js', 'dist/index.cjs', 'dist/index.d.ts', 'dist/pulse-thread.cjs']
    expect(contentFaults(manifest, files)).toEqual([])
    expect(contentFaults(manifest, files.slice(1))).toEqual(['./dist/index.js is not in the package'])
    expect(contentFaults(manifest, files.slice(0, -1))).toEqual([
      './dist/pulse-thread.cjs is not in the package',
    ])
    expect(contentFaults(manifest, [...files, 'src/index.ts', 'dist/index.js.map'])).toHaveLength(2)
  })
})

describe('the migrations module', () => {
  const first = { file: '0001_cluster.sql', text: "-- requires-code: 1\nselect '`' || \"${x}\" || '\\';\r\n" }
  const second = { file: '0002_jobs.sql', text: 'select 2;\n' }

  it('holds each file exactly, in order, with its number, name, required code and checksum', async () => {
    const source = renderMigrations([second, first])
    const { migrations } = (await import(
      `data:text/javascript,${encodeURIComponent(withoutTypes(source))}`
    )) as {
      migrations: unknown
    }
    const sql = first.text.replace('\r\n', '\n')
    const checksum = (text: string) => createHash('sha256').update(text).digest('hex')
    expect(migrations).toEqual([
      { version: 1, name: 'cluster', requires: 1, sql, checksum: checksum(sql) },
      { version: 2, name: 'jobs', requires: 2, sql: second.text, checksum: checksum(second.text) },
    ])
  })

  it('refuses a gap, a number that stands twice and a name of another form', () => {
    expect(() => renderMigrations([second])).toThrow('version 1 is missing')
    expect(() => renderMigrations([first, { file: '0001_other.sql', text: '' }])).toThrow('stands twice')
    expect(() => renderMigrations([{ file: 'jobs.sql', text: '' }])).toThrow('0001_cluster.sql')
  })

  const withoutTypes = (source: string) =>
    source.replace(/export interface [^]*?\n}\n/, '').replace(': readonly Migration[]', '')
})
