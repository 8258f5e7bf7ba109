import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import { ClientSource, quoteSchema, Session } from '../../src/database/index.js'
import { type Logger, silentLogger, systemClock } from '../../src/kernel/index.js'
import { type Proxy, startProxy } from '../../src/testing/index.js'
import type { TestDatabaseAccess } from '../support/database.js'

export const limits = { statementMs: 10_000, lockMs: 5_000 }

/** A source of clients made from the options of a pool that never connects. */
export function sourceOf(config: pg.PoolConfig): ClientSource {
  return new ClientSource(new pg.Pool(config))
}

/** A session that is closed after the test. */
export function sessionOf(
  source: ClientSource,
  options: Partial<ConstructorParameters<typeof Session>[1]> = {},
): Session {
  const context = { source, schema: quoteSchema('forge'), clock: systemClock }
  const session = new Session(context, { purpose: 'test', statementMs: 10_000, ...options })
  onTestFinished(() => session.close())
  return session
}

/** A proxy before the server of the database, stopped after the test. */
export async function proxyTo(url: string): Promise<Proxy & { readonly databaseUrl: string }> {
  const { hostname: host, port } = new URL(url)
  const proxy = await startProxy({ target: { host, port: Number(port) } })
  onTestFinished(() => proxy.stop())
  return Object.assign(proxy, { databaseUrl: proxy.url(url) })
}

/** A login role of this test's own, dropped after it; `settings` are its ALTER ROLE … SET. */
export async function createRole(
  database: TestDatabaseAccess,
  settings: Readonly<Record<string, string>> = {},
): Promise<{ readonly name: string; readonly url: string }> {
  const name = `forge_test_role_${randomBytes(6).toString('hex')}`
  await database.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret'`)
  onTestFinished(async () => {
    await database.query(`DROP OWNED BY ${name} CASCADE`)
    await database.query(`DROP ROLE ${name}`)
  })
  for (const [key, value] of Object.entries(settings)) {
    await database.query(`ALTER ROLE ${name} SET ${key} = '${value}'`)
  }
  const url = new URL(database.url)
  url.username = name
  url.password = 'secret'
  return { name, url: url.href }
}

/** What a logger under test was warned of. */
export function warnings(): { readonly logger: Logger; readonly heard: string[] } {
  const heard: string[] = []
  return { logger: { ...silentLogger, warn: (message) => void heard.push(message) }, heard }
}
