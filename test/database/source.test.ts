import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ClientSource, type HostPool, statement } from '../../src/database/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { fakeServer, loggedIn } from './fake-server.js'
import { createRole, limits, sessionOf, sourceOf } from './kit.js'

const database = useDatabase({ migrated: false })

const who = statement<{ who: string; application: string }>(
  'test_who',
  () => `select current_user::text as who, current_setting('application_name') as application`,
)

/** The fields of a URL, as a pool without a connection string has them. */
function fieldsOf(url: string): pg.PoolConfig {
  const { hostname, port, username, password, pathname } = new URL(url)
  return { host: hostname, port: Number(port), user: username, password, database: pathname.slice(1) }
}

async function failureOf(config: pg.PoolConfig): Promise<{ code: string; message: string }> {
  const source = sourceOf(config)
  const failure = await source.connect('forge:test', limits).then(
    () => null,
    (error: unknown) => error,
  )
  expect(source.openCount).toBe(0)
  return failure as { code: string; message: string }
}

describe('clients made from the options of the host pool', () => {
  test('connect as the pool does, by string or by fields; where both are given the string counts, as in pg', async () => {
    const role = await createRole(database)
    const both = { ...fieldsOf(database.url), host: 'nowhere.invalid', connectionString: role.url }
    const expected = [
      [database.url, new URL(database.url).username],
      [role.url, role.name],
    ] as const
    for (const [url, user] of expected) {
      expect(await sessionOf(sourceOf({ connectionString: url })).run(who)).toMatchObject([{ who: user }])
      expect(await sessionOf(sourceOf(fieldsOf(url))).run(who)).toMatchObject([{ who: user }])
    }
    expect(await sessionOf(sourceOf(both)).run(who)).toMatchObject([{ who: role.name }])
  })

  test('ask a password function for each connection', async () => {
    const { password, ...fields } = fieldsOf(database.url)
    let asked = 0
    const source = sourceOf({ ...fields, password: async () => (asked++, password as string) })
    for (let n = 1; n <= 2; n++) {
      await sessionOf(source).run(who)
      expect(asked).toBe(n)
    }
  })

  test('have the password and the key of ssl, which pg hides, and what else says where and how to connect', () => {
    const ssl = { ca: 'ca', key: 'key', cert: 'cert', rejectUnauthorized: false }
    const whole = { ...ssl }
    const pool = new pg.Pool({
      ...{ user: 'u', password: 'p', host: 'h', port: 1, database: 'd', ssl, options: '-c jit=off' },
      ...{ max: 3, statement_timeout: 1, query_timeout: 1, idleTimeoutMillis: 1, application_name: 'host' },
    })
    const source = new ClientSource(pool)
    expect([...Object.keys(pool.options), ...Object.keys(ssl)]).not.toContain('key')
    expect(Object.keys(pool.options)).not.toContain('password')
    // pg hides the key again in each client that it makes.
    for (let n = 0; n < 2; n++) {
      const config = source.config('forge:test')
      expect(structuredClone(config)).toMatchObject({
        user: 'u',
        password: 'p',
        ssl: whole,
        options: '-c jit=off',
      })
      expect(config).toMatchObject({ application_name: 'forge:test', keepAlive: true })
      for (const name of ['max', 'statement_timeout', 'query_timeout', 'idleTimeoutMillis'])
        expect(config).not.toHaveProperty(name)
      expect((new pg.Client(config) as unknown as { ssl: { key: string } }).ssl.key).toBe('key')
    }
  })

  test('carry their own name, also against one in the connection string', async () => {
    const session = sessionOf(sourceOf({ connectionString: `${database.url}?application_name=host` }))
    expect(await session.run(who)).toMatchObject([{ application: 'forge:test' }])
  })

  test('are counted while they are open', async () => {
    const source = sourceOf({ connectionString: database.url })
    const sessions = [sessionOf(source), sessionOf(source)]
    for (const session of sessions) await session.run(who)
    expect(source.openCount).toBe(2)
    for (const session of sessions) await session.close()
    expect(source.openCount).toBe(0)
  })
})

describe('limits of the role, the database or the connection string do not reach them', () => {
  const settings = {
    statement_timeout: '50ms',
    lock_timeout: '40ms',
    idle_in_transaction_session_timeout: '30ms',
    idle_session_timeout: '20ms',
    default_transaction_isolation: 'serializable',
    default_transaction_read_only: 'on',
    datestyle: 'German, DMY',
  }
  const names = Object.keys(settings)
  const current = statement<{ name: string; setting: string }>(
    'test_settings',
    () =>
      `select name, current_setting(name) as setting from unnest(array['${names.join("','")}', 'transaction_isolation', 'transaction_read_only']) as name`,
  )
  const ours = {
    statement_timeout: '10s',
    lock_timeout: '5s',
    idle_in_transaction_session_timeout: '1min',
    idle_session_timeout: '0',
    default_transaction_isolation: 'read committed',
    default_transaction_read_only: 'off',
    datestyle: 'ISO, DMY',
    transaction_isolation: 'read committed',
    transaction_read_only: 'off',
  }

  async function settingsOf(url: string): Promise<unknown> {
    const rows = await sessionOf(sourceOf({ connectionString: url })).run(current)
    return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
  }

  test('set for the role', async () => {
    const role = await createRole(database, settings)
    expect(await settingsOf(role.url)).toEqual(ours)
  })

  test('set for the database', async () => {
    for (const name of names) {
      const value = settings[name as keyof typeof settings]
      await database.query(`ALTER DATABASE ${database.name} SET ${name} = '${value}'`)
      onTestFinished(async () => {
        await database.query(`ALTER DATABASE ${database.name} RESET ${name}`)
      })
    }
    expect(await settingsOf(database.url)).toEqual(ours)
  })

  test('set in the connection string', async () => {
    const url = `${database.url}?statement_timeout=50&lock_timeout=40&options=-c%20default_transaction_isolation%3Dserializable`
    expect(await settingsOf(url)).toMatchObject({ ...ours, datestyle: expect.stringContaining('ISO') })
  })
})

describe('a pool that cannot be used', () => {
  const real = new pg.Pool()

  test.each<[what: string, pool: unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a connection string', 'postgres://u@h/d'],
    ['the options of a pool', { connectionString: 'postgres://u@h/d' }],
    ['a client', new pg.Client()],
    ['an Express app', Object.assign(() => {}, { use: () => {}, get: () => {} })],
    ['a pool of another library', { query: () => {}, connect: () => {}, options: {} }],
    ['a pool without options', { connect: () => {}, Client: pg.Client, options: null }],
  ])('%s is refused as none', (_, pool) => {
    expect(() => new ClientSource(pool as HostPool)).toThrow(
      expect.objectContaining({ code: 'FORGE_POOL_INVALID' }),
    )
  })

  test('is refused when it was ended', async () => {
    expect(new ClientSource(real).pool).toBe(real)
    const ending = real.end()
    expect(() => new ClientSource(real)).toThrow(expect.objectContaining({ code: 'FORGE_POOL_ENDED' }))
    await ending
    expect(() => new ClientSource(real)).toThrow(expect.objectContaining({ code: 'FORGE_POOL_ENDED' }))
  })

  test('of another copy of pg is told by its shape', () => {
    const { options } = new pg.Pool({ host: 'h' })
    const foreign = { options, Client: class Foreign {}, connect: () => {}, totalCount: 0 }
    expect(new ClientSource(foreign as unknown as HostPool).config('x')).toMatchObject({ host: 'h' })
  })

  test('that brings its own stream or Client is known as such', () => {
    class Own extends pg.Client {}
    expect(sourceOf({}).custom).toBe(false)
    expect(sourceOf({ Client: Own }).custom).toBe(true)
    expect(sourceOf({ stream: () => null as never }).custom).toBe(true)
  })
})

describe('a connection that fails says why, and leaves nothing open', () => {
  test('a wrong password, and a password function that gives none', async () => {
    const { password: _, ...fields } = fieldsOf(database.url)
    for (const password of ['wrong', () => 7 as unknown as string]) {
      const { code, message } = await failureOf({ ...fields, password })
      expect(code).toBe('FORGE_DATABASE_AUTH')
      expect(message).toMatch(/password/i)
    }
  })

  test('a role that is not there, and one that may not connect', async () => {
    const role = await createRole(database)
    const url = new URL(role.url)
    url.username = `${role.name}_missing`
    expect(await failureOf({ connectionString: url.href })).toMatchObject({ code: 'FORGE_DATABASE_AUTH' })
    await database.query(`REVOKE CONNECT ON DATABASE ${database.name} FROM public`)
    onTestFinished(async () => {
      await database.query(`GRANT CONNECT ON DATABASE ${database.name} TO public`)
    })
    expect(await failureOf({ connectionString: role.url })).toMatchObject({ code: 'FORGE_DATABASE_AUTH' })
  })

  test('a database that is not there', async () => {
    const { code, message } = await failureOf({ ...fieldsOf(database.url), database: 'not_there' })
    expect(code).toBe('FORGE_DATABASE_MISSING')
    expect(message).toContain('"not_there" does not exist')
  })

  test.each(['127.0.0.1', 'localhost'])('a port of %s where nobody listens', async (host) => {
    const server = await fakeServer(loggedIn, () => loggedIn)
    await server[Symbol.asyncDispose]()
    const url = server.url.replace('127.0.0.1', host)
    const { code, message } = await failureOf({ connectionString: url })
    expect(code).toBe('FORGE_DATABASE_UNREACHABLE')
    expect(message).toContain('ECONNREFUSED')
  })

  test('a connection string that is none', async () => {
    const { code, message } = await failureOf({ connectionString: 'postgres://u:secret@h:port/d' })
    expect(code).toBe('FORGE_DATABASE_URL_INVALID')
    expect(message).not.toContain('secret')
  })

  test('a server that takes the login and answers nothing, as a pooler does before a server that is away', async () => {
    await using server = await fakeServer(loggedIn, () => Buffer.alloc(0))
    const source = sourceOf({ connectionString: server.url })
    const connecting = source.connect('forge:test', { ...limits, connectMs: 200 })
    await expect(connecting).rejects.toMatchObject({ code: 'FORGE_DATABASE_UNREACHABLE' })
    expect(server.asked).toEqual(['P'])
    await until(() => server.open.size === 0 && source.openCount === 0, { label: 'nothing is open' })
  })

  test.each([
    ['during its login', Buffer.alloc(0)],
    ['before its first answer', loggedIn],
  ])('one that is given up %s ends whoever waits for it', async (_, login) => {
    await using server = await fakeServer(login, () => Buffer.alloc(0))
    const source = sourceOf({ connectionString: server.url })
    const outcome = source.connect('forge:test', limits).catch((error: unknown) => error)
    await until(() => server.open.size === 1, { label: 'the server has it' })
    source.abandon()
    expect(await outcome).toMatchObject({ code: 'FORGE_DATABASE_UNREACHABLE' })
    expect(source.openCount).toBe(0)
    await expect(source.connect('forge:test', limits)).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
  })
})
