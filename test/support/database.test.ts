import pg from 'pg'
import { expect, inject, test } from 'vitest'
import { createDatabase, useDatabase } from './database.js'
import { beginRun, databaseUrl } from './test-run.js'
import { until } from './until.js'

const database = useDatabase()

async function names(like: string): Promise<string[]> {
  const rows = await database.query<{ datname: string }>(
    'SELECT datname FROM pg_database WHERE datname LIKE $1',
    [like],
  )
  return rows.map((row) => row.datname)
}

test('a file has a database of its own, with pools and single statements on it', async () => {
  const { rows } = await database.pool({ max: 1 }).query('SELECT current_database() AS name')
  expect(rows).toEqual([{ name: database.name }])
  expect(await database.query('SELECT $1::int + 1 AS sum', [1])).toEqual([{ sum: 2 }])
  expect(new URL(database.url).pathname).toBe(`/${database.name}`)
})

test('many databases are cloned from one template at the same time', async () => {
  const made = await Promise.all(Array.from({ length: 8 }, () => createDatabase()))
  expect(new Set(made.map(({ name }) => name)).size).toBe(8)
  await Promise.all(made.map((each) => each.drop()))
})

test('a database is cloned even when somebody is connected to the template for a moment', async () => {
  const { adminUrl, template } = inject('forgeDatabases')
  const guest = new pg.Client({ connectionString: databaseUrl(adminUrl, template) })
  await guest.connect()
  const cloning = createDatabase()
  await until(
    async () => (await database.query(`SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%'`))[0],
    {
      label: 'the clone is tried',
    },
  )
  await guest.end()
  await (await cloning).drop()
})

test('dropping cuts the connections that are left', async () => {
  const made = await createDatabase({ migrated: false })
  const guest = new pg.Client({ connectionString: made.url })
  guest.on('error', () => {})
  await guest.connect()
  await made.drop()
  expect(await names(made.name)).toEqual([])
})

test('a run drops what dead runs left an hour ago, and nothing of runs that live or of others', async () => {
  const { adminUrl } = inject('forgeDatabases')
  const run = 2 ** 31 - 1
  const [old, young, foreign] = [
    `forge_test_1000_${run}_left`,
    `forge_test_${2 ** 33}_${run}_left`,
    'forge_test_mine',
  ]
  for (const name of [old, young, foreign]) await database.query(`CREATE DATABASE ${name}`)
  const other = await beginRun(adminUrl, async () => {})
  expect(await names(old)).toEqual([])
  expect(await names(young)).toEqual([young])
  expect(await names(foreign)).toEqual([foreign])
  expect(await names(database.name)).toEqual([database.name])
  await other.end()
  expect(await names(`${other.prefix}%`)).toEqual([])
  for (const name of [young, foreign]) await database.query(`DROP DATABASE ${name}`)
})

test('until gives the value, and names what it waited for and the last error when it gives up', async () => {
  let calls = 0
  expect(await until(() => ++calls > 2 && 'done', { label: 'three calls' })).toBe('done')
  const waiting = until(() => Promise.reject(new Error('no')), { deadlineMs: 50, label: 'never' })
  await expect(waiting).rejects.toThrow('until never')
  await expect(waiting).rejects.toMatchObject({ cause: new Error('no') })
})
