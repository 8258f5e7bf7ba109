import { describe, expect, onTestFinished, test } from 'vitest'
import { migrate, prepareDatabase, quoteSchema } from '../../src/database/index.js'
import type { PrepareContext } from '../../src/database/prepare.js'
import { silentLogger, systemClock } from '../../src/kernel/index.js'
import { spawnNode } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { failure, fakeServer, loggedIn } from './fake-server.js'
import { proxyTo, sourceOf } from './kit.js'

const database = useDatabase({ migrated: false })

interface Given extends Partial<PrepareContext> {
  readonly url?: string
  readonly schemaName?: string
}

function setup({ url = database.url, schemaName = 'forge', ...rest }: Given = {}) {
  const heard: string[] = []
  const hear = (message: string): void => void heard.push(message)
  const source = sourceOf({ connectionString: url })
  const context: PrepareContext = {
    source,
    schema: quoteSchema(schemaName),
    clock: systemClock,
    logger: { ...silentLogger, debug: hear, info: hear },
    mode: 'auto',
    timeoutMs: 20_000,
    ...rest,
  }
  return { context, source, heard, prepare: () => prepareDatabase(context) }
}

async function schemas(name: string): Promise<unknown[]> {
  return database.query('SELECT FROM pg_namespace WHERE nspname = $1', [name])
}

/** Runs the preparation and says with which code it failed, and after how long. */
async function failing(given: Given): Promise<{ code: string; ms: number; message: string }> {
  const { prepare, source } = setup(given)
  const since = performance.now()
  const error = await prepare().then(
    () => ({ code: 'none', message: '' }),
    (failure: unknown) => failure as { code: string; message: string },
  )
  const ms = performance.now() - since
  await until(() => source.openCount === 0, { label: 'nothing of it is connected' })
  return { code: error.code, message: error.message, ms }
}

describe('waiting for the server', () => {
  test('that is down goes on until it is up, and then the schema is made', async () => {
    const proxy = await proxyTo(database.url)
    proxy.cut()
    const { prepare, heard, source } = setup({ url: proxy.databaseUrl, schemaName: 'waited_for' })
    const preparing = prepare()
    await until(() => heard.length >= 3, { label: 'it has tried a few times' })
    expect(heard[0]).toBe('forge: PostgreSQL is not there yet (ECONNRESET)')
    expect(await schemas('waited_for')).toEqual([])
    proxy.heal()
    await preparing
    expect(await schemas('waited_for')).toHaveLength(1)
    expect(heard.at(-1)).toMatch(/^forge: applied 0001_\w+, 0002_\w+.*; the schema is at \d+$/)
    expect(source.openCount).toBe(0)
  })

  test.each([
    ['in the middle of the migrations', 'create schema', { bytes: 0 }],
    ['before it commits', 'commit\0', { bytes: 0 }],
    ['before it answers the commit', 'commit\0', {}],
  ])('that drops the connection %s is tried again', async (when, text, bytes) => {
    const match = Buffer.from(text)
    const proxy = await proxyTo(database.url)
    const schemaName = `dropped_${when.length}`
    const { prepare, source } = setup({ url: proxy.databaseUrl, schemaName })
    const cut = proxy.cutAfterBytes({ direction: 'toServer', match, ...bytes })
    await prepare()
    await cut.happened({ deadlineMs: 1_000 })
    expect(await schemas(schemaName)).toHaveLength(1)
    expect(source.openCount).toBe(0)
  })

  test('ends at the timeout', async () => {
    const proxy = await proxyTo(database.url)
    proxy.cut()
    const { code, ms } = await failing({ url: proxy.databaseUrl, timeoutMs: 600 })
    expect(code).toBe('FORGE_DATABASE_UNREACHABLE')
    expect(ms).toBeGreaterThanOrEqual(590)
    expect(ms).toBeLessThan(3_000)
  })

  test('ends at the timeout, also when the server takes connections and answers nothing', async () => {
    for (const login of [Buffer.alloc(0), loggedIn]) {
      await using server = await fakeServer(login, () => Buffer.alloc(0))
      const { code, ms } = await failing({ url: server.url, timeoutMs: 300 })
      expect(code).toBe('FORGE_DATABASE_UNREACHABLE')
      expect(ms).toBeLessThan(3_000)
    }
  })

  test.each([
    ['is starting up', '57P03'],
    ['has no connection left', '53300'],
  ])('goes on while it %s', async (_, code) => {
    const server = await fakeServer(failure('FATAL', code), () => Buffer.alloc(0))
    onTestFinished(() => server[Symbol.asyncDispose]())
    const { context, heard } = setup({ url: server.url, timeoutMs: 700 })
    await expect(prepareDatabase(context)).rejects.toMatchObject({ code: 'FORGE_DATABASE_UNREACHABLE' })
    expect(heard).toContain(`forge: PostgreSQL is not there yet (${code})`)
    expect(heard.length).toBeGreaterThan(2)
  })

  test('keeps a process alive in which nothing else is', async () => {
    const server = await fakeServer(loggedIn, () => loggedIn)
    await server[Symbol.asyncDispose]()
    await using process = spawnNode({
      script: new URL('./fixtures/preparing.ts', import.meta.url),
      args: [server.url, '1000'],
      execArgv: ['--import', new URL('../support/typescript.mjs', import.meta.url).href],
    })
    expect(await process.exited).toEqual({ code: 0, signal: null })
    expect(process.stdout).toBe('FORGE_DATABASE_UNREACHABLE')
  })
})

describe('what no waiting can mend is said at once', () => {
  test.each<[what: string, change: (url: URL) => void, code: string]>([
    ['a wrong password', (url) => (url.password = 'wrong'), 'FORGE_DATABASE_AUTH'],
    ['a database that is not there', (url) => (url.pathname = '/not_there'), 'FORGE_DATABASE_MISSING'],
  ])('%s', async (_, change, expected) => {
    const url = new URL(database.url)
    change(url)
    const { code, ms } = await failing({ url: url.href })
    expect(code).toBe(expected)
    expect(ms).toBeLessThan(5_000)
  })

  test('a connection string that is none', async () => {
    const { code, ms } = await failing({ url: 'postgres://u@h:port/d' })
    expect(code).toBe('FORGE_DATABASE_URL_INVALID')
    expect(ms).toBeLessThan(5_000)
  })
})

describe.each(['check', 'off'] as const)("with migrate '%s'", (mode) => {
  test('pending migrations are named, and nothing is written', async () => {
    const schemaName = `pending_${mode}`
    const { code, message, ms } = await failing({ mode, schemaName })
    expect(code).toBe('FORGE_MIGRATION_PENDING')
    expect(message).toMatch(/^0001_\w+, 0002_\w+/)
    expect(ms).toBeLessThan(5_000)
    expect(await schemas(schemaName)).toEqual([])
  })

  test('a schema that is up to date is taken as it is', async () => {
    const schemaName = `ready_${mode}`
    const { prepare, context } = setup({ mode, schemaName })
    await migrate({ ...context, waitMs: 5_000 })
    await prepare()
  })

  test(`a changed migration is ${mode === 'check' ? 'refused' : 'not looked at'}`, async () => {
    const schemaName = `changed_${mode}`
    const { prepare, context } = setup({ mode, schemaName })
    await migrate({ ...context, waitMs: 5_000 })
    await database.query(`UPDATE ${schemaName}.migration SET checksum = 'other' WHERE version = 1`)
    if (mode === 'off') await prepare()
    else await expect(prepare()).rejects.toMatchObject({ code: 'FORGE_MIGRATION_CHANGED' })
  })
})
