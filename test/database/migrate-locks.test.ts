import type pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { codeVersion } from '../../src/database/index.js'
import { lockMigrations } from '../../src/database/queries.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { createRole } from './kit.js'
import { carrying, migrator, remains, versions } from './migrate-kit.js'

const database = useDatabase({ migrated: false })

async function holding(statement: string): Promise<pg.PoolClient> {
  const client = await database.pool({ max: 1 }).connect()
  onTestFinished(() => client.release(true))
  await client.query('BEGIN')
  await client.query(statement)
  return client
}

async function isWaiting(): Promise<boolean> {
  const rows = await database.query(
    `SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE NOT l.granted AND a.datname = current_database() AND a.application_name = 'forge:migrate'`,
  )
  return rows.length > 0
}

describe('a lock that somebody holds', () => {
  const create = 'create table a (id int)'
  const carried = carrying(create, 'alter table a add column n int')

  test('on a table that changes is waited for in short tries, between which others are let through', async () => {
    await migrator(database, { schema: 'read', carried: carrying(create) }).migrate()
    const reader = await holding('SELECT FROM read.a')
    const migrating = migrator(database, { schema: 'read', carried }).migrate()
    await until(isWaiting, { label: 'the migration waits for the reader' })
    await until(async () => !(await isWaiting()), { label: 'it lets go for a while' })
    expect(await database.query('SELECT FROM read.a')).toEqual([])
    await until(isWaiting, { label: 'it tries again' })
    await reader.query('COMMIT')
    expect(await migrating).toMatchObject({ version: 2, applied: ['0002_step2'] })
  })

  test('for longer than the patience lasts is an error, and nothing is written', async () => {
    await migrator(database, { schema: 'busy', carried: carrying(create) }).migrate()
    const before = await remains(database, 'busy')
    await holding('SELECT FROM busy.a')
    const migrating = migrator(database, { schema: 'busy', carried, waitMs: 0 }).migrate()
    await expect(migrating).rejects.toMatchObject({
      code: 'FORGE_MIGRATION_FAILED',
      cause: { code: '55P03' },
    })
    expect(await remains(database, 'busy')).toEqual(before)
  })

  test('by another migrator does not matter when nothing is pending', async () => {
    await migrator(database, { schema: 'idle', carried }).migrate()
    await holding(lockMigrations.text('"idle"'))
    const since = performance.now()
    expect(await migrator(database, { schema: 'idle', carried }).migrate()).toMatchObject({ applied: [] })
    expect(performance.now() - since).toBeLessThan(1_500)
  })

  test('by a migrator of another schema does not matter either', async () => {
    await holding(lockMigrations.text('"other"'))
    expect(await migrator(database, { schema: 'own', carried, waitMs: 0 }).migrate()).toMatchObject({
      version: 2,
    })
  })
})

describe('the schema', () => {
  test('may be named by a reserved word', async () => {
    expect(await migrator(database, { schema: 'order' }).migrate()).toMatchObject({ version: codeVersion })
    expect((await migrator(database, { schema: 'order' }).status()).pending).toEqual([])
  })

  test('stands beside another, and the functions of each work in their own', async () => {
    for (const schema of ['select', 'side']) await migrator(database, { schema }).migrate()
    const partitions = () =>
      database.query<{ schema: string }>(
        `SELECT c.relnamespace::regnamespace::text AS schema FROM pg_class c
         WHERE c.relname ~ '^job_history_[0-9]{8}$' AND c.relispartition`,
      )
    const before = await partitions()
    await database.query(`SET search_path TO side; SELECT "select".job_history_partition(current_date + 30); RESET search_path`) // prettier-ignore
    expect(await partitions()).toHaveLength(before.length + 1)
    expect(await partitions()).toContainEqual({ schema: '"select"' })
    expect(await versions(database, 'side')).toEqual(await versions(database, 'select'))
  })
})

describe('a role', () => {
  const carried = carrying('create table a (id int)')

  test('that may not make the schema is told so, and nothing is written', async () => {
    const { url } = await createRole(database)
    const denied = migrator(database, { schema: 'denied', url, carried })
    await expect(denied.migrate()).rejects.toMatchObject({
      code: 'FORGE_MIGRATION_DENIED',
      cause: { code: '42501' },
    })
    expect(await denied.status()).toMatchObject({ pending: ['0001_step1'] })
    expect(await remains(database, 'denied')).toBeNull()
  })

  test('without DDL works when nothing is pending, and is told so when something is', async () => {
    await migrator(database, { schema: 'granted', carried }).migrate()
    const { name, url } = await createRole(database)
    await database.query(
      `GRANT USAGE ON SCHEMA granted TO ${name}; GRANT SELECT ON granted.migration TO ${name}`,
    )
    expect(await migrator(database, { schema: 'granted', url, carried }).migrate()).toMatchObject({
      version: 1,
    })
    const before = await remains(database, 'granted')
    const more = carrying('create table a (id int)', 'create table b (id int)')
    const denied = migrator(database, { schema: 'granted', url, carried: more }).migrate()
    await expect(denied).rejects.toMatchObject({ code: 'FORGE_MIGRATION_DENIED' })
    expect(await remains(database, 'granted')).toEqual(before)
  })

  test('that may not even look into the schema is told so', async () => {
    await migrator(database, { schema: 'closed', carried }).migrate()
    const { url } = await createRole(database)
    for (const call of ['migrate', 'status'] as const) {
      const denied = migrator(database, { schema: 'closed', url, carried })[call]()
      await expect(denied).rejects.toMatchObject({ code: 'FORGE_MIGRATION_DENIED' })
    }
  })

  test('that owns a schema made for it migrates, without the right to make schemas', async () => {
    const { name, url } = await createRole(database)
    await database.query(`CREATE SCHEMA owned AUTHORIZATION ${name}`)
    const owner = migrator(database, { schema: 'owned', url })
    expect(await owner.migrate()).toMatchObject({ version: codeVersion, pending: [] })
  })

  test('with limits and a search path of its own migrates as any other', async () => {
    const { name, url } = await createRole(database, {
      search_path: 'nowhere',
      statement_timeout: '20ms',
      default_transaction_isolation: 'serializable',
      default_transaction_read_only: 'on',
    })
    await database.query(`GRANT CREATE ON DATABASE ${database.name} TO ${name}`)
    const slow = carrying('create table a (id int)', 'select pg_sleep(0.1)')
    expect(await migrator(database, { schema: 'limited', url, carried: slow }).migrate()).toMatchObject({
      version: 2,
    })
  })
})
