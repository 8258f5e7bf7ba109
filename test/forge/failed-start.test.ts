import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import express from 'express'
import pg from 'pg'
import { describe, expect, it, type TestContext } from 'vitest'
import { type AttachOptions, createForge, type HostPool } from '../../src/index.js'
import { startProxy } from '../../src/testing/index.js'
import { createDatabase, useDatabase } from '../support/database.js'
import { listeningLogger } from '../support/forge.js'
import { databaseUrl } from '../support/test-run.js'
import { until } from '../support/until.js'
import { forgeConnections, openResources, serve, type Site, untilNothingIsLeft } from './kit.js'

const database = useDatabase()

/** One way for a start to fail: what is passed to attach, and what it must say. */
interface Failure {
  readonly pool?: unknown
  readonly options?: AttachOptions | object
  readonly code: string
  /** Part of the message: what is wrong, or what to do. */
  readonly says: RegExp
  readonly cleanUp?: () => Promise<unknown>
}

/** The longest `startTimeout` here, and what it takes to close what was opened. */
const failMsMax = 8_000

type Break = (context: TestContext) => Failure | Promise<Failure>

function withUrl(change: (url: URL) => void): pg.Pool {
  const url = new URL(database.url)
  change(url)
  return database.pool({ connectionString: url.href })
}

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

const failures: Record<string, Break> = {
  'the password is wrong': async ({ skip }) => {
    const pool = withUrl((url) => (url.password = 'wrong'))
    const trusted = await pool.query('SELECT 1').then(
      () => true,
      () => false,
    )
    if (trusted) skip('the server asks for no password')
    return { pool, code: 'FORGE_DATABASE_AUTH', says: /Check user, password/ }
  },
  'the user does not exist': () => ({
    pool: withUrl((url) => (url.username = 'forge_test_nobody')),
    code: 'FORGE_DATABASE_AUTH',
    says: /forge_test_nobody/,
  }),
  'the database does not exist': () => ({
    pool: database.pool({ connectionString: databaseUrl(database.url, 'forge_test_nowhere') }),
    code: 'FORGE_DATABASE_MISSING',
    says: /"forge_test_nowhere" does not exist.*Create it/,
  }),
  'the server is down': async () => {
    const port = await closedPort()
    return {
      pool: withUrl((url) => (url.port = String(port))),
      options: { startTimeout: '1s' },
      code: 'FORGE_DATABASE_UNREACHABLE',
      says: /ECONNREFUSED.*Check host, port/,
    }
  },
  'the server accepts and says nothing': async () => {
    const { hostname, port } = new URL(database.url)
    const proxy = await startProxy({ target: { host: hostname, port: Number(port) } })
    proxy.blackhole()
    return {
      pool: database.pool({ connectionString: proxy.url(database.url) }),
      options: { startTimeout: 200 },
      code: 'FORGE_DATABASE_UNREACHABLE',
      says: /timeout.*Check host, port/,
      cleanUp: () => proxy.stop(),
    }
  },
  'the pulse does not get through': async () => {
    const { hostname, port } = new URL(database.url)
    const proxy = await startProxy({ target: { host: hostname, port: Number(port) } })
    proxy.blackhole({ only: ({ applicationName }) => applicationName === 'forge:pulse' })
    return {
      pool: database.pool({ connectionString: proxy.url(database.url) }),
      options: { startTimeout: '1s' },
      code: 'FORGE_START_TIMEOUT',
      says: /1000 ms.*startTimeout/,
      cleanUp: () => proxy.stop(),
    }
  },
  'the role may not use the tables': async () => {
    const role = `forge_test_role_${process.pid}`
    await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`)
    await database.query(`GRANT USAGE ON SCHEMA forge TO ${role}`)
    await database.query(`GRANT SELECT ON forge.migration TO ${role}`)
    const pool = withUrl((url) => Object.assign(url, { username: role, password: 'secret' }))
    return {
      pool,
      code: 'FORGE_START_FAILED',
      says: /permission denied for table.*privileges/,
      cleanUp: async () => {
        await pool.end()
        await database.query(`DROP OWNED BY ${role}`)
        await database.query(`DROP ROLE ${role}`)
      },
    }
  },
  'the pool is ended': async () => {
    const pool = database.pool()
    await pool.end()
    return { pool, code: 'FORGE_POOL_ENDED', says: /pool that is open/ }
  },
  'the pool is about to end': () => {
    const pool = database.pool()
    void pool.end()
    return { pool, code: 'FORGE_POOL_ENDED', says: /pool that is open/ }
  },
  'the pool is missing': () => ({ pool: undefined, code: 'FORGE_POOL_INVALID', says: /needs a pg.Pool/ }),
  'the pool is a connection string': () => ({
    pool: database.url,
    code: 'FORGE_POOL_INVALID',
    says: /needs a pg.Pool/,
  }),
  'the pool is a client': () => ({
    pool: new pg.Client(database.url),
    code: 'FORGE_POOL_INVALID',
    says: /needs a pg.Pool/,
  }),
  'an option is not known': () => ({
    options: { concurency: 4 },
    code: 'FORGE_OPTION_UNKNOWN',
    says: /'concurency': Did you mean 'concurrency'\?/,
  }),
  'an option is malformed': () => ({
    options: { lease: { ms: '10 seconds' } },
    code: 'FORGE_DURATION_INVALID',
    says: /lease\.ms.*'10 seconds'/,
  }),
  'two options do not fit each other': () => ({
    options: { lease: { ms: '1s', renewMs: '900ms' } },
    code: 'FORGE_OPTION_INVALID',
    says: /lease\.renewMs must be at most a third/,
  }),
  'migrations are pending and may not be applied': async () => {
    const empty = await createDatabase({ migrated: false })
    const pool = new pg.Pool({ connectionString: empty.url })
    return {
      pool,
      options: { migrate: 'check' },
      code: 'FORGE_MIGRATION_PENDING',
      says: /0001_\w+.*Run `forge migrate`/,
      cleanUp: async () => {
        expect(await forgeConnections(empty)).toEqual([])
        expect(await empty.query(`SELECT FROM pg_namespace WHERE nspname = 'forge'`)).toEqual([])
        await pool.end()
        await empty.drop()
      },
    }
  },
  'the schema was made by a newer version': async () => {
    const newer = await createDatabase()
    await newer.query(
      `INSERT INTO forge.migration (version, name, checksum, requires) VALUES (9999, 'later', 'x', 9999)`,
    )
    const pool = new pg.Pool({ connectionString: newer.url })
    return {
      pool,
      code: 'FORGE_SCHEMA_TOO_NEW',
      says: /9999.*Upgrade forge/,
      cleanUp: async () => {
        expect(await forgeConnections(newer)).toEqual([])
        await pool.end()
        await newer.drop()
      },
    }
  },
}

describe('a start that fails', () => {
  it.for(Object.entries(failures))(
    'because %s says so once, with its code, and leaves nothing',
    async ([, makeFailure], context) => {
      const forge = createForge()
      const app = express()
      await using site = await serve(app)
      const { logger, heard } = listeningLogger()
      const failure = await makeFailure(context)
      const pool = ('pool' in failure ? failure.pool : database.pool()) as HostPool
      const before = await openResources(database)
      const attaching = forge.attach(app, pool, { logger, ...failure.options })
      const since = performance.now()
      await expect(attaching).rejects.toMatchObject({
        name: 'ForgeError',
        code: failure.code,
        message: expect.stringMatching(failure.says) as string,
      })
      expect(performance.now() - since).toBeLessThan(failMsMax)
      await failure.cleanUp?.()
      await untilNothingIsLeft(database, before)
      const message = expect.stringMatching(/^forge did not start: /) as string
      expect(heard.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([
        { level: 'error', message, fields: { code: failure.code } },
      ])
      expect(await statuses(site)).toEqual({ live: 200, ready: 503, page: 503, css: 503 })

      const job = forge.job('after.failure', { run: () => 'works' })
      await using node = await forge.attach(app, database.pool())
      expect(await (await job.enqueue()).result()).toBe('works')
      expect(await statuses(site)).toEqual({ live: 200, ready: 200, page: 200, css: 200 })
      expect(app.router.stack).toHaveLength(1)
      await node.stop()
    },
  )

  it('for an app that is none is refused before anything else', async () => {
    for (const app of [undefined, 'app', {}, database.pool()]) {
      const attaching = createForge().attach(app as never, database.pool(), { logger: false })
      await expect(attaching).rejects.toMatchObject({
        code: 'FORGE_OPTION_INVALID',
        message: expect.stringMatching(/first argument of attach\(\) must be an app with use/) as string,
      })
    }
    expect(await forgeConnections(database)).toEqual([])
  })

  it('is told as a process warning when the logger itself is malformed', async () => {
    const warnings: Error[] = []
    const hear = (warning: Error): void => void warnings.push(warning)
    process.on('warning', hear)
    const attaching = createForge().attach(null, database.pool(), { logger: {} as never })
    await expect(attaching).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
    await until(() => warnings.length > 0, { label: 'the warning' })
    process.off('warning', hear)
    expect(warnings).toMatchObject([{ name: 'ForgeWarning', code: 'FORGE_OPTION_INVALID' }])
  })
})

async function statuses(site: Site): Promise<Record<string, number>> {
  const paths = { live: '/forge/live', ready: '/forge/ready', page: '/forge', css: '/forge/status.css' }
  const asked = Object.entries(paths).map(async ([name, path]) => [name, (await site.ask(path)).status])
  return Object.fromEntries(await Promise.all(asked)) as Record<string, number>
}
