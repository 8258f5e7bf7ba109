import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Session, statement, unprepared } from '../../src/database/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { createRole, sessionOf, sourceOf } from './kit.js'

const database = useDatabase()

const pid = statement<{ pid: number }>('test_pid', () => 'select pg_backend_pid() as pid')
const add = statement('test_add', (s) => `insert into ${s}.job_queue (queue) values ($1)`)
const xid = statement<{ xid: string }>('test_xid', () => 'select pg_current_xact_id()::text as xid')
const nap = statement<{ one: number }>('test_nap', () => 'select 1 as one from pg_sleep($1::float8)')
const wrong = statement('test_wrong', () => 'select 1 / $1::int')

const connect = (options?: Parameters<typeof sessionOf>[1]): Session =>
  sessionOf(sourceOf({ connectionString: database.url }), options)

async function backend(session: Session): Promise<number | undefined> {
  return (await session.run(pid))[0]?.pid
}

async function added(like: string): Promise<string[]> {
  const rows = await database.query<{ name: string }>(
    'SELECT queue AS name FROM forge.job_queue WHERE queue LIKE $1 ORDER BY queue',
    [like],
  )
  return rows.map(({ name }) => name)
}

describe('one connection', () => {
  test('is opened by the first call and serves all of them', async () => {
    const source = sourceOf({ connectionString: database.url })
    const session = sessionOf(source)
    expect([session.connected, source.openCount]).toEqual([false, 0])
    const pids = await Promise.all(Array.from({ length: 10 }, () => backend(session)))
    expect(new Set(pids).size).toBe(1)
    expect([session.connected, source.openCount]).toEqual([true, 1])
  })

  test('does one thing at a time: no call gets into the transaction of another', async () => {
    const session = connect()
    const order: string[] = []
    const inside = session.transaction(async (run) => {
      const [before] = await run(xid)
      order.push('begun')
      await run(nap, [0.05])
      const [after] = await run(xid)
      order.push('done')
      expect(after).toEqual(before)
      return before
    })
    const beside = session.run(xid).then(([row]) => {
      order.push('beside')
      return row
    })
    expect(await inside).not.toEqual(await beside)
    expect(order).toEqual(['begun', 'done', 'beside'])
  })

  test('survives a statement that the server refuses, whose error is pg’s own', async () => {
    const session = connect()
    const before = await backend(session)
    await expect(session.run(wrong, [0])).rejects.toMatchObject({ code: '22012', name: 'error' })
    expect(await backend(session)).toBe(before)
  })

  test('survives a statement that the server ended in time', async () => {
    const session = connect({ statementMs: 100 })
    const before = await backend(session)
    await expect(session.run(nap, [10])).rejects.toMatchObject({
      code: 'FORGE_STATEMENT_TIMEOUT',
      message: expect.stringContaining('statement timeout') as string,
      cause: { code: '57014' },
    })
    expect(await backend(session)).toBe(before)
  })

  test('survives a lock that it did not get in time, alone and in a transaction', async () => {
    const session = connect()
    const before = await backend(session)
    const impatient = statement('test_lock', () => `select set_config('lock_timeout', '100', false)`)
    const holder = await database.pool().connect()
    await holder.query('BEGIN; LOCK TABLE forge.job_queue')
    const read = statement('test_read_queues', (s) => `select from ${s}.job_queue`)
    const refused = { code: 'FORGE_LOCK_TIMEOUT', cause: { code: '55P03' } }
    await session.run(impatient)
    await expect(session.run(read)).rejects.toMatchObject(refused)
    await expect(session.transaction((run) => run(read))).rejects.toMatchObject(refused)
    await holder.query('ROLLBACK')
    holder.release()
    expect(await session.run(read)).toEqual([])
    expect(await backend(session)).toBe(before)
  })

  test('prepares each statement once, by its name', async () => {
    const session = connect()
    await session.run(nap, [0])
    await session.run(nap, [0])
    const prepared = statement<{ name: string }>(
      'test_list',
      () => 'select name from pg_prepared_statements order by 1',
    )
    await session.run(unprepared(statement('test_unprepared', () => 'select $1::int')), [1])
    expect(await session.run(prepared)).toEqual([{ name: 'test_list' }, { name: 'test_nap' }])
  })

  test('gives types as forge wants them, whatever parsers the host has set and wherever the server stands', async () => {
    const row = statement('test_types', () => `
      select 7::bigint as n, 1.5::float8 as f, true as b, '{"a":1}'::jsonb as json, null::timestamptz as none,
             timestamptz '2026-11-24 15:04:05.123456+00' as at, 'x'::text as text, '{a,b}'::text[] as list`) // prettier-ignore
    for (const oid of [20, 1184, 3802]) {
      const before = pg.types.getTypeParser(oid)
      pg.types.setTypeParser(oid, () => 'of the host')
      onTestFinished(() => pg.types.setTypeParser(oid, before))
    }
    for (const zone of ['UTC', 'Asia/Kolkata', 'America/St_Johns', 'Asia/Tokyo']) {
      const { url } = await createRole(database, { timezone: zone, datestyle: 'German, DMY' })
      expect(await sessionOf(sourceOf({ connectionString: url })).run(row), zone).toEqual([
        {
          n: 7,
          f: 1.5,
          b: true,
          json: { a: 1 },
          none: null,
          at: new Date('2026-11-24T15:04:05.123Z'),
          text: 'x',
          list: ['a', 'b'],
        },
      ])
    }
  })
})

describe('a transaction', () => {
  test('is committed when its work is done, and gives what the work gave', async () => {
    const session = connect()
    const result = await session.transaction(async (run) => {
      await run(add, ['kept-1'])
      await run(add, ['kept-2'])
      return 'result'
    })
    expect(result).toBe('result')
    expect(await added('kept-%')).toEqual(['kept-1', 'kept-2'])
  })

  test('is read committed, whatever the database says', async () => {
    await database.query(`ALTER DATABASE ${database.name} SET default_transaction_isolation = 'serializable'`)
    const isolation = statement<{ level: string }>(
      'test_level',
      () => `select current_setting('transaction_isolation') as level`,
    )
    expect(await connect().transaction((run) => run(isolation))).toEqual([{ level: 'read committed' }])
    await database.query(`ALTER DATABASE ${database.name} RESET default_transaction_isolation`)
  })

  test('is rolled back when its work throws, and the connection goes on', async () => {
    const session = connect()
    const before = await backend(session)
    const fault = new Error('mine')
    const failing = session.transaction(async (run) => {
      await run(add, ['thrown'])
      throw fault
    })
    await expect(failing).rejects.toBe(fault)
    expect(await added('thrown')).toEqual([])
    expect(await backend(session)).toBe(before)
  })

  test('with a statement that failed and was not minded is an error, since nothing of it was kept', async () => {
    const session = connect()
    const before = await backend(session)
    const swallowing = session.transaction(async (run) => {
      await run(add, ['swallowed'])
      await run(wrong, [0]).catch(() => {})
    })
    await expect(swallowing).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
    expect(await added('swallowed')).toEqual([])
    expect(await backend(session)).toBe(before)
  })

  test('whose commit the server refuses throws the reason', async () => {
    await database.query(`
      CREATE TABLE parent (id int PRIMARY KEY);
      CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`)
    const orphan = statement('test_orphan', () => 'insert into child values (1)')
    const session = connect()
    await expect(session.transaction((run) => run(orphan))).rejects.toMatchObject({ code: '23503' })
    expect(await session.transaction((run) => run(pid))).toHaveLength(1)
  })
})

describe('an end', () => {
  test('comes after so long without a call, and the next call begins anew', async () => {
    const source = sourceOf({ connectionString: database.url })
    const session = sessionOf(source, { idleMs: 50 })
    const before = await backend(session)
    await until(() => !session.connected && source.openCount === 0, { label: 'it is closed' })
    expect(await backend(session)).not.toBe(before)
  })

  test('does not come while calls go on', async () => {
    const session = connect({ idleMs: 40 })
    const before = await backend(session)
    await session.run(nap, [0.2])
    expect(await backend(session)).toBe(before)
  })

  test('waits for the call in hand; later calls are refused', async () => {
    const source = sourceOf({ connectionString: database.url })
    const session = sessionOf(source)
    await session.run(pid)
    const slow = session.run(nap, [0.1])
    // The call has its turn before the session is told to close.
    await until(async () => (await database.query(`SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep($1%' AND state = 'active' AND datname = current_database()`))[0], { label: 'it sleeps' }) // prettier-ignore
    const closing = session.close()
    await expect(session.run(pid)).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
    await closing
    expect(await slow).toEqual([{ one: 1 }])
    expect([session.connected, source.openCount]).toEqual([false, 0])
    await session.close()
    await expect(session.transaction((run) => run(pid))).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
    expect(source.openCount).toBe(0)
  })

  test('of a session that was never used opens nothing', async () => {
    const source = sourceOf({ connectionString: 'postgres://nobody@127.0.0.1:1/none' })
    await sessionOf(source).close()
    expect(source.openCount).toBe(0)
  })
})

describe('behind a pooler that has a backend for each transaction', () => {
  test('each statement runs in a transaction with its own limits, prepared under no name', async () => {
    const source = sourceOf({ connectionString: database.url })
    source.pooler = 'transaction'
    const session = sessionOf(source, { statementMs: 4_000 })
    const seen = statement('test_seen', () => `
      select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock,
             current_setting('idle_in_transaction_session_timeout') as idle,
             now() = statement_timestamp() as alone, (select count(*)::int from pg_prepared_statements) as prepared`) // prettier-ignore
    expect(await session.run(seen)).toEqual([
      { statement: '4s', lock: '4s', idle: '1min', alone: false, prepared: 0 },
    ])
    await session.transaction((run) => run(add, ['pooled']))
    expect(await added('pooled')).toEqual(['pooled'])
  })
})
