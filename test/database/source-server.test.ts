import { EventEmitter } from 'node:events'
import { expect, test } from 'vitest'
import { ClientSource, type HostPool } from '../../src/database/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { limits, sourceOf } from './kit.js'

const database = useDatabase({ migrated: false })

/** What stands between us and a server: the number that the login names, and the backend that serves a statement. */
interface Between {
  readonly login: number
  readonly backend: (client: object) => number
  readonly version?: number
  readonly standby?: boolean
}

/** A source whose clients reach nothing and are told what `between` says. */
function behind({ login, backend, version = 160_000, standby = false }: Between) {
  const settings: unknown[] = []
  class Told extends EventEmitter {
    readonly processID = login

    async connect(): Promise<void> {}

    async query(text: string, values: unknown[] = []): Promise<unknown> {
      const pid = backend(this)
      if (text.includes('set_config') && values[0] === pid) settings.push(this)
      return { rows: [{ pid, version, standby }] }
    }

    async end(): Promise<void> {
      this.emit('end')
    }
  }
  const pool = { options: {}, Client: Told, connect: () => {}, totalCount: 0 }
  return { source: new ClientSource(pool as unknown as HostPool), settings }
}

test('a server that is connected to directly keeps its settings for the session', async () => {
  const { source, settings } = behind({ login: 7, backend: () => 7 })
  const client = await source.connect('forge:test', limits)
  expect(source).toMatchObject({ pooler: 'none', serverVersion: 160_000, openCount: 1 })
  expect(settings).toEqual([client])
  await client.end()
})

test('a pooler with a backend for each session is known, and the settings are made on that backend', async () => {
  const backends = new Map<unknown, number>()
  const backend = (client: unknown): number => {
    const pid = backends.get(client) ?? 100 + backends.size
    backends.set(client, pid)
    return pid
  }
  const { source, settings } = behind({ login: 7, backend })
  const client = await source.connect('forge:test', limits)
  expect(source).toMatchObject({ pooler: 'session', openCount: 1 })
  expect(settings).toEqual([client])
  await client.end()
})

test('a pooler with a backend for each transaction is known, and no settings are left on its backends', async () => {
  const { source, settings } = behind({ login: 7, backend: () => 100 })
  const client = await source.connect('forge:test', limits)
  expect(source).toMatchObject({ pooler: 'transaction', openCount: 1 })
  expect(settings).toEqual([])
  await client.end()
})

test('a server before PostgreSQL 15, and a standby, are refused', async () => {
  const old = behind({ login: 7, backend: () => 7, version: 149_999 }).source
  await expect(old.connect('forge:test', limits)).rejects.toMatchObject({
    code: 'FORGE_SERVER_TOO_OLD',
    message: expect.stringContaining('The server is 14.'),
  })
  const standby = behind({ login: 7, backend: () => 7, standby: true }).source
  await expect(standby.connect('forge:test', limits)).rejects.toMatchObject({
    code: 'FORGE_DATABASE_UNREACHABLE',
    message: expect.stringContaining('standby'),
  })
  expect(old.openCount + standby.openCount).toBe(0)
})

test('a client whose backend is killed ends nothing but itself', async () => {
  const source = sourceOf({ connectionString: database.url })
  const client = await source.connect('forge:test', limits)
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  await database.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid])
  await until(() => source.openCount === 0, { label: 'it is not counted any more' })
})
