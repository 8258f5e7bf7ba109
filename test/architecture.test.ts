import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { checkHouse, measureHouse, type Tree } from './tooling/house.js'
import { rooms, topLevel } from './tooling/house/layout.js'

const root = fileURLToPath(new URL('..', import.meta.url))

/** How many files and functions stand above the aim of their budget. Both numbers may only go down. */
const ratchet = { longFiles: 0, longFunctions: 0 }

function readTree(): Tree {
  const names = readdirSync(`${root}src`, { recursive: true, encoding: 'utf8' }).map((name) =>
    name.replaceAll('\\', '/'),
  )
  const files = names.filter((name) => name.endsWith('.ts')).sort()
  return Object.fromEntries(files.map((name) => [`src/${name}`, readFileSync(`${root}src/${name}`, 'utf8')]))
}

/** The faces of a small sound house; a case adds the file that breaks a rule. */
const soundHouse: Tree = {
  'src/kernel/index.ts': `export { now } from './clock.js'`,
  'src/kernel/clock.ts': `export const now = () => Date.now()`,
  'src/database/index.ts': `export { query } from './query.js'`,
  'src/database/query.ts': `import type { Pool } from 'pg'\nimport { now } from '../kernel/index.js'\nexport const query = (pool: Pool) => [pool, now()]`,
  'src/database/queries.ts': `export const claim = 'select id from job where state = $1'`,
  'src/runtime/index.ts': `export const environment = process.env`,
  'src/cluster/index.ts': `export const cluster = 1`,
  'src/cluster/pulse-thread.ts': `import pg from 'pg'\nimport { parentPort } from 'node:worker_threads'\nparentPort?.postMessage(typeof pg)`,
  'src/jobs/index.ts': `export const jobs = 1`,
  'src/index.ts': `export { jobs } from './jobs/index.js'`,
}

function faultsOf(tree: Tree): string[] {
  return checkHouse({ ...soundHouse, ...tree }).map(({ rule, file }) => `${rule} ${file}`)
}

/** Faults of one line of code in the jobs room. */
function faultsOfLine(text: string): string[] {
  return faultsOf({ 'src/jobs/claim.ts': text }).map((fault) => fault.split(' ')[0] ?? '')
}

const lines = (count: number, line = '// line') => Array.from({ length: count }, () => line).join('\n')

describe('the house', () => {
  it('keeps every rule of its layout', () => {
    const found = checkHouse(readTree()).map(
      (fault) => `${fault.rule}: ${fault.file}:${fault.line} ${fault.message}`,
    )
    expect(found).toEqual([])
  })

  it('has no more long files and functions than the ratchet says, and the ratchet says no more than there are', () => {
    const { longFiles, longFunctions } = measureHouse(readTree())
    expect(longFiles).toHaveLength(ratchet.longFiles)
    expect(longFunctions).toHaveLength(ratchet.longFunctions)
  })

  it('holds nothing at the top of the tree that the layout does not name', () => {
    const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
      cwd: root,
      encoding: 'utf8',
    })
    const top = new Set(tracked.split('\n').map((file) => file.split('/')[0] ?? ''))
    const foreign = [...top].filter(
      (name) => !/^(\.|$)/.test(name) && !topLevel.some((known) => known === name),
    )
    expect(foreign).toEqual([])
  })
})

describe('the judge of the house', () => {
  it('finds nothing in a sound house', () => {
    expect(faultsOf({})).toEqual([])
  })

  it.each(Object.keys(rooms).filter((room) => !room.endsWith('.ts')))('knows the room %s', (room) => {
    expect(faultsOf({ [`src/${room}/index.ts`]: 'export const face = 1' })).toEqual([])
  })

  it('fires on a room that is not of the list, and on a file beside the rooms', () => {
    expect(faultsOf({ 'src/misc/index.ts': '' })).toEqual(['rooms src/misc/index.ts'])
    expect(faultsOf({ 'src/common.ts': '' })).toEqual(['rooms src/common.ts'])
  })

  it('fires on a room without a face', () => {
    expect(faultsOf({ 'src/schedules/tick.ts': '' })).toEqual(['rooms src/schedules/tick.ts'])
  })

  it.each(['utils', 'types', 'helpers', 'managers'])('fires on a folder named %s', (name) => {
    expect(faultsOf({ [`src/jobs/${name}/text.ts`]: '' })).toEqual([`rooms src/jobs/${name}/text.ts`])
  })

  it('fires on a claim that goes past the one module that claims', () => {
    const house = {
      'src/jobs/queries/claim.ts': `export const claim = 'select 1'`,
      'src/jobs/trip.ts': `import { claim } from './queries/claim.js'\nexport const trip = claim`,
    }
    expect(faultsOf(house)).toEqual([])
    const past = `import { claim } from './queries/claim.js'\nexport const pump = claim`
    expect(faultsOf({ ...house, 'src/jobs/pump.ts': past })).toEqual(['doors src/jobs/pump.ts'])
  })

  it('fires on an import from a higher floor and from the same floor', () => {
    expect(faultsOf({ 'src/cluster/lead.ts': `import { jobs } from '../jobs/index.js'` })).toEqual([
      'floors src/cluster/lead.ts',
    ])
    const sessions = { 'src/sessions/index.ts': `export { jobs } from '../jobs/index.js'` }
    expect(faultsOf(sessions)).toEqual(['floors src/sessions/index.ts'])
  })

  it.each([
    `import { query } from '../database/query.js'`,
    `import type { query } from '../database/query.js'`,
    `export * from '../database/query.js'`,
    `export type { query } from '../database/query.js'`,
    `const { query } = await import('../database/query.js')`,
    `type Query = typeof import('../database/query.js')`,
    `import query = require('../database/query.js')`,
    `import '../database/query.ts'`,
  ])('fires on a way around a face: %s', (text) => {
    expect(faultsOfLine(text)).toEqual(['floors'])
  })

  it('fires on an import of the own face, and of a file that does not exist', () => {
    expect(faultsOf({ 'src/jobs/claim.ts': `import { jobs } from './index.js'` })).toEqual([
      'floors src/jobs/claim.ts',
    ])
    expect(faultsOfLine(`import './nothing.js'`)).toEqual(['floors'])
    expect(faultsOfLine(`import manifest from '../../package.json' with { type: 'json' }`)).toEqual([])
    expect(faultsOfLine(`import lock from '../../package-lock.json' with { type: 'json' }`)).toEqual([
      'floors',
    ])
  })

  it('lets siblings, lower faces and the side rooms be used as the layout says', () => {
    const sound = {
      'src/jobs/claim.ts': `import { query } from '../database/index.js'\nimport { a } from './lane.js'`,
      'src/jobs/lane.ts': `export const a = 1`,
      'src/cli/main.ts': `import { jobs } from '../index.js'`,
      'src/cli/index.ts': `export const cli = 1`,
      'src/embedded/index.ts': `export const embedded = 1`,
      'src/testing/index.ts': `export { jobs } from '../index.js'\nexport { embedded } from '../embedded/index.js'`,
    }
    expect(faultsOf(sound)).toEqual([])
    expect(
      faultsOf({ ...sound, 'src/cli/up.ts': `import { embedded } from '../embedded/index.js'` }),
    ).toEqual(['floors src/cli/up.ts'])
  })

  it('fires on a cycle between files, also through types alone', () => {
    const cycle = {
      'src/jobs/a.ts': `import type { B } from './b.js'\nexport type A = B`,
      'src/jobs/b.ts': `import type { C } from './c.js'\nexport type B = C`,
      'src/jobs/c.ts': `import type { A } from './a.js'\nexport type C = A`,
    }
    expect(faultsOf(cycle)).toEqual(['cycles src/jobs/a.ts'])
  })

  it('fires on a package outside the room that keeps it, and on one that no room keeps', () => {
    expect(faultsOfLine(`import pg from 'pg'`)).toEqual(['packages'])
    expect(faultsOfLine(`import type { Pool } from 'pg'`)).toEqual(['packages'])
    expect(faultsOfLine(`import { trace } from '@opentelemetry/api'`)).toEqual(['packages'])
    expect(faultsOfLine(`import grpc from '@grpc/grpc-js'`)).toEqual(['packages'])
    expect(faultsOfLine(`import lodash from 'lodash/fp'`)).toEqual(['packages'])
    expect(faultsOfLine(`import fs from 'fs'`)).toEqual(['packages'])
    expect(faultsOfLine(`import fs from 'node:fs'`)).toEqual([])
  })

  it('fires on a package that two rooms name, where one of them may', () => {
    const schema = `import type { StandardSchemaV1 } from '@standard-schema/spec'`
    expect(faultsOf({ 'src/jobs/job.ts': schema })).toEqual([])
    expect(faultsOf({ 'src/jobs/job.ts': schema, 'src/kernel/schema.ts': schema })).toEqual([
      'packages src/kernel/schema.ts',
    ])
  })

  it('fires on a separate program that imports anything but its own modules', () => {
    const program = 'src/cluster/pulse-thread.ts'
    expect(faultsOf({ [program]: `import { cluster } from './other.js'` })).toEqual([`floors ${program}`])
    expect(faultsOf({ [program]: `import fs from 'node:fs'` })).toEqual([`packages ${program}`])
    expect(faultsOf({ [program]: `import listen from 'pg-listen'` })).toEqual([`packages ${program}`])
  })

  it.each([
    `const { A } = process.env`,
    `const a = process.env['A']`,
    `const a = process['env']`,
    `const a = globalThis.process.env`,
    `const { env } = process`,
    `const { env: other } = process`,
    `import { env } from 'node:process'`,
    `import { env as other } from 'process'`,
  ])('fires on the environment outside runtime: %s', (text) => {
    expect(faultsOfLine(text)).toContain('environment')
  })

  it.each([
    `console.log(1)`,
    `const { log } = console`,
    `globalThis.console.warn(1)`,
    `import { log } from 'node:console'`,
  ])('fires on the console: %s', (text) => {
    expect(faultsOfLine(text)).toContain('console')
  })

  it.each([
    `Date.now()`,
    `new Date()`,
    `new Date`,
    `Date()`,
    `const now = Date.now`,
    `globalThis.Date.now()`,
  ])('fires on the time of day outside the clock: %s', (text) => {
    expect(faultsOfLine(text)).toEqual(['clock'])
  })

  it('lets a date be made of a value', () => {
    expect(faultsOfLine(`export const at = (ms: number) => new Date(ms)`)).toEqual([])
  })

  it('fires on a generated file without the suffix, and on the suffix without the words', () => {
    expect(faultsOf({ 'src/jobs/list.ts': '// Generated by a script. Do not edit.' })).toEqual([
      'generated src/jobs/list.ts',
    ])
    expect(faultsOf({ 'src/jobs/list.gen.ts': 'export const list = []' })).toEqual([
      'generated src/jobs/list.gen.ts',
    ])
    expect(
      faultsOf({ 'src/jobs/list.gen.ts': `// Generated by a script.\nexport const q = 'select 1'` }),
    ).toEqual([])
  })

  it('fires on a file over 400 lines and on a function over 70', () => {
    expect(faultsOf({ 'src/jobs/long.ts': lines(400) })).toEqual([])
    expect(faultsOf({ 'src/jobs/long.ts': lines(401) })).toEqual(['sizes src/jobs/long.ts'])
    expect(faultsOf({ 'src/jobs/long.ts': `function f() {\n${lines(68)}\n}` })).toEqual([])
    expect(faultsOf({ 'src/jobs/long.ts': `function f() {\n${lines(69)}\n}` })).toEqual([
      'sizes src/jobs/long.ts',
    ])
    expect(faultsOf({ 'src/jobs/long.ts': `const f = () => {\n${lines(69)}\n}` })).toEqual([
      'sizes src/jobs/long.ts',
    ])
  })

  it('counts files over 300 lines and functions over 50', () => {
    const long = { 'src/jobs/a.ts': lines(301), 'src/jobs/b.ts': `function f() {\n${lines(49)}\n}` }
    expect(measureHouse(long)).toEqual({
      longFiles: ['src/jobs/a.ts: 301'],
      longFunctions: ['src/jobs/b.ts:1 f: 51'],
    })
    const short = { 'src/jobs/a.ts': lines(300), 'src/jobs/b.ts': `function f() {\n${lines(48)}\n}` }
    expect(measureHouse(short)).toEqual({ longFiles: [], longFunctions: [] })
  })

  it('fires on a fourth positional parameter, where no framework dictates it', () => {
    expect(faultsOfLine(`export function f(a: 1, b: 2, c: 3, d: 4) {}`)).toEqual(['parameters'])
    expect(faultsOfLine(`export type F = (a: 1, b: 2, c: 3, ...d: 4[]) => void`)).toEqual(['parameters'])
    expect(faultsOfLine(`export function f(this: 0, a: 1, b: 2, c: 3) {}`)).toEqual([])
    const handler = 'export const handle = (error: 1, request: 2, response: 3, next: 4) => {}'
    expect(faultsOf({ 'src/host/index.ts': handler })).toEqual([])
    expect(faultsOfLine(handler)).toEqual(['parameters'])
  })
})

describe('the eye for SQL', () => {
  it.each([
    'select 1',
    'select * from job',
    'SELECT id, name FROM job WHERE id = $1',
    'select pg_notify($1, $2)',
    'select id from forge.job',
    ' insert into job (id) values ($1)',
    'update job set state = $1',
    'update only "job" as j set state = $1',
    'delete from job',
    '-- the claim\nwith picked as materialized (select 1)\nselect 1',
    'with recursive tree(id) as (select 1) select 1',
    'create table job (id uuid)',
    'create or replace function f() returns void',
    'create unique index concurrently i on job (id)',
    'alter table job add column a int',
    'drop schema forge cascade',
    'set local statement_timeout = 1',
    'set search_path to forge',
    'listen forge_hint',
    'unlisten *',
    'notify forge_hint',
    'commit;',
    'begin isolation level read committed',
    'savepoint before_step',
    'rollback to savepoint before_step',
    'release savepoint before_step',
    'lock table job in share mode',
    'truncate job',
    'explain (analyze) select 1',
    'vacuum job',
    'show server_version_num',
    'grant usage on schema forge to app',
    'do $$ begin end $$',
    'for update skip locked',
    'and state = $1',
    'where id in (1, 2)',
    'on conflict (id) do nothing',
    'order by due, id',
    'returning id, token',
  ])('sees %j', (sql) => {
    expect(faultsOfLine(`export const s = ${JSON.stringify(sql)}`)).toEqual(['sql'])
    expect(faultsOf({ 'src/jobs/queries.ts': `export const s = ${JSON.stringify(sql)}` })).toEqual([])
    expect(faultsOf({ 'src/jobs/queries/claim.ts': `export const s = ${JSON.stringify(sql)}` })).toEqual([])
  })

  it('sees a statement with values put into it, and a lone verb that is sent', () => {
    expect(
      faultsOfLine('export const s = (table: string) => `select id from ${table} where id = 1`'),
    ).toEqual(['sql'])
    expect(faultsOfLine('export const s = (table: string) => `update ${table} set a = 1`')).toEqual(['sql'])
    expect(faultsOfLine(`export const s = (c: C) => c.query('commit')`)).toEqual(['sql'])
    expect(faultsOfLine(`export const s = { text: 'ROLLBACK' }`)).toEqual(['sql'])
    expect(faultsOfLine(`export const s = (answer: A) => answer.command === 'ROLLBACK'`)).toEqual([])
    expect(faultsOfLine(`export const s = { kind: 'rollback' }`)).toEqual([])
  })

  it.each([
    'Select the queue that you mean.',
    'Update the lease set in the options.',
    'Create a Pool with max of at least 2.',
    'select the nearest name',
    'update the lease',
    'delete',
    'set',
    'set the option lease.ms to more than the pulse',
    'with this option the worker stops',
    'create the schema first, or grant it to the role',
    'drop the connection',
    'listen failed before the first probe',
    'begin again with a new epoch',
    'commit outcome unknown',
    'show how to go on',
    'call enqueue inside the transaction',
    'do not end the pool',
    'where the process runs',
    'and the node stops',
    'order by hand',
    'returning to the pool',
  ])('takes no English for SQL: %j', (text) => {
    expect(faultsOfLine(`export const s = ${JSON.stringify(text)}`)).toEqual([])
  })
})
