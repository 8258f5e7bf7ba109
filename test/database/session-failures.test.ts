import { EventEmitter } from 'node:events'
import { describe, expect, test } from 'vitest'
import { ClientSource, type HostPool, type Session, statement } from '../../src/database/index.js'
import type { ProxyConnection } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { proxyTo, sessionOf, sourceOf } from './kit.js'

const database = useDatabase()

const pid = statement<{ pid: number }>('test_pid', () => 'select pg_backend_pid() as pid')
const add = statement('test_add', (s) => `insert into ${s}.job_queue (queue) values ($1)`)
const nap = statement('test_nap', () => 'select pg_sleep($1::float8)')

const mine = ({ applicationName }: ProxyConnection): boolean => applicationName === 'forge:test'

/** A statement without values, as it goes over the wire. */
function sent(text: string): Buffer {
  const message = Buffer.from(`Q\0\0\0\0${text}\0`)
  message.writeUInt32BE(message.length - 1, 1)
  return message
}

async function backend(session: Session): Promise<number> {
  return (await session.run(pid))[0]?.pid as number
}

/** Waits until the connection is back in order, and says on which backend. */
function again(session: Session): Promise<number> {
  return until(() => backend(session), { label: 'the session works again' })
}

async function isThere(name: string): Promise<boolean> {
  return (await database.query('SELECT FROM forge.job_queue WHERE queue = $1', [name])).length > 0
}

async function proxied(statementMs: number) {
  const proxy = await proxyTo(database.url)
  const source = sourceOf({ connectionString: proxy.databaseUrl })
  return { proxy, source, session: sessionOf(source, { statementMs }) }
}

describe('a backend that is killed', () => {
  test('during a statement is a lost connection, and the next call has another', async () => {
    const session = sessionOf(sourceOf({ connectionString: database.url }))
    const before = await backend(session)
    const running = session.run(nap, [30])
    const lost = expect(running).rejects.toMatchObject({
      code: 'FORGE_CONNECTION_LOST',
      cause: { code: '57P01' },
    })
    await until(async () => (await database.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%'`, [before]))[0], { label: 'it sleeps, and is killed' }) // prettier-ignore
    await lost
    expect(await backend(session)).not.toBe(before)
  })

  test('while the connection is idle disturbs nobody, and the next call has another', async () => {
    const source = sourceOf({ connectionString: database.url })
    const session = sessionOf(source)
    const before = await backend(session)
    await database.query('SELECT pg_terminate_backend($1)', [before])
    await until(() => !session.connected && source.openCount === 0, { label: 'the session knows' })
    expect(await backend(session)).not.toBe(before)
  })

  test('in the middle of a transaction takes the transaction with it, also when its work does not mind', async () => {
    const session = sessionOf(sourceOf({ connectionString: database.url }))
    const work = session.transaction(async (run) => {
      await run(add, ['killed'])
      const [row] = await run(pid)
      await database.query('SELECT pg_terminate_backend($1)', [row?.pid])
      await until(() => !session.connected, { label: 'the session knows' })
      await run(add, ['killed-too']).catch(() => {})
    })
    await expect(work).rejects.toMatchObject({ code: 'FORGE_CONNECTION_LOST' })
    await again(session)
    expect(await isThere('killed')).toBe(false)
  })
})

describe('a server that does not answer in time', () => {
  test('loses the connection, and the next call has another', async () => {
    const { proxy, source, session } = await proxied(100)
    const before = await backend(session)
    proxy.blackhole()
    await expect(session.run(pid)).rejects.toMatchObject({
      code: 'FORGE_DEADLINE',
      message: expect.stringContaining('test_pid: 2100 ms.'),
    })
    expect(session.connected).toBe(false)
    proxy.resume()
    expect(await again(session)).not.toBe(before)
    expect(source.openCount).toBe(1)
  })

  test('cannot be written to by work that does not mind', async () => {
    const { proxy, session } = await proxied(100)
    await backend(session)
    const work = session.transaction(async (run) => {
      await run(add, ['late'])
      proxy.blackhole()
      await run(pid).catch(() => {})
      proxy.resume()
    })
    await expect(work).rejects.toMatchObject({ code: 'FORGE_CONNECTION_LOST' })
    await again(session)
    expect(await isThere('late')).toBe(false)
  })
})

describe('a connection that breaks', () => {
  test('after COMMIT was sent leaves the outcome open, and the server has committed', async () => {
    const { proxy, session } = await proxied(5_000)
    const before = await backend(session)
    const cut = proxy.cutAfterBytes({ direction: 'toServer', match: sent('commit'), only: mine })
    const work = session.transaction((run) => run(add, ['committed']))
    await expect(work).rejects.toMatchObject({ code: 'FORGE_COMMIT_UNKNOWN', cause: expect.any(Error) })
    await cut.happened()
    expect(await again(session)).not.toBe(before)
    expect(await isThere('committed')).toBe(true)
  })

  test('in the middle of COMMIT leaves the outcome open, and the server has not committed', async () => {
    const { proxy, session } = await proxied(5_000)
    await backend(session)
    proxy.cutAfterBytes({
      direction: 'toServer',
      match: sent('commit').subarray(0, -3),
      bytes: 0,
      only: mine,
    })
    const work = session.transaction((run) => run(add, ['not-committed']))
    await expect(work).rejects.toMatchObject({ code: 'FORGE_COMMIT_UNKNOWN' })
    await again(session)
    expect(await isThere('not-committed')).toBe(false)
  })

  test('before COMMIT is lost, and so is what was done', async () => {
    const { proxy, session } = await proxied(5_000)
    await backend(session)
    proxy.cutAfterBytes({ direction: 'toServer', match: 'insert into', only: mine })
    const work = session.transaction((run) => run(add, ['cut']))
    await expect(work).rejects.toMatchObject({ code: 'FORGE_CONNECTION_LOST' })
    await again(session)
    expect(await isThere('cut')).toBe(false)
  })

  test('and cannot be made again says so, until it can', async () => {
    const { proxy, source, session } = await proxied(5_000)
    const before = await backend(session)
    proxy.cut()
    await expect(until(() => session.run(pid), { label: 'x', deadlineMs: 200 })).rejects.toMatchObject({
      cause: { code: 'FORGE_DATABASE_UNREACHABLE' },
    })
    expect(source.openCount).toBe(0)
    proxy.heal()
    expect(await again(session)).not.toBe(before)
  })

  test('by an error that nobody asked for is closed, not only forgotten', async () => {
    const destroyed: unknown[] = []
    class Told extends EventEmitter {
      readonly processID = 7
      readonly connection = { stream: { destroy: () => destroyed.push(this) } }
      async connect(): Promise<void> {}
      async query(): Promise<unknown> {
        return { rows: [{ pid: 7, version: 160_000, standby: false, client: this }] }
      }
      async end(): Promise<void> {}
    }
    const pool = { options: {}, Client: Told, connect: () => {}, totalCount: 0 }
    const session = sessionOf(new ClientSource(pool as unknown as HostPool))
    const client = async (): Promise<EventEmitter | undefined> =>
      (await session.run(pid as typeof pid & { row?: { client: EventEmitter } })).map(
        (row) => (row as unknown as { client: EventEmitter }).client,
      )[0]
    const first = await client()
    first?.emit('error', new Error('unasked'))
    expect(destroyed).toEqual([first])
    expect(await client()).not.toBe(first)
  })
})
