import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, inject } from 'vitest'
import { databaseUrl } from './test-run.js'

export interface DatabaseOptions {
  /** true (default): cloned from the migrated template; false: empty. */
  readonly migrated?: boolean
}

export interface TestDatabase {
  readonly url: string
  readonly name: string
  /** Runs one statement on a connection of the test's own, and returns the rows. */
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    sql: string,
    values?: readonly unknown[],
  ): Promise<Row[]>
  /** Ends all connections to the database, whoever holds them, and removes it. */
  drop(): Promise<void>
}

/** PostgreSQL clones only a database that nobody is connected to; an autovacuum worker may be, for a moment. */
const objectInUse = '55006'
const cloneTries = 20
const poolEndMsMax = 5_000

/** A database of this test's own. Needs `postgres-global.ts` as globalSetup. */
export async function createDatabase({ migrated = true }: DatabaseOptions = {}): Promise<TestDatabase> {
  const { adminUrl, template, prefix, strategy } = inject('forgeDatabases')
  const name = `${prefix}${randomBytes(6).toString('hex')}`
  const source = migrated ? template : 'template0'
  await withAdmin((admin) =>
    clone(admin, `CREATE DATABASE ${name} TEMPLATE ${source} ENCODING 'UTF8' STRATEGY ${strategy}`),
  )
  const url = databaseUrl(adminUrl, name)
  const pool = createPool({ connectionString: url, max: 2, application_name: 'forge test' })
  return {
    url,
    name,
    query: async <Row extends pg.QueryResultRow>(sql: string, values?: readonly unknown[]) =>
      (await pool.query<Row>(sql, values && [...values])).rows,
    drop: async () => {
      await pool.end()
      await withAdmin((admin) => admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`))
    },
  }
}

export interface TestDatabaseAccess extends Omit<TestDatabase, 'drop'> {
  /** A new pool on each call, ended after the last test of the file. */
  pool(config?: pg.PoolConfig): pg.Pool
}

/** One database for the test file that calls this at its top; made before its tests and dropped after them. */
export function useDatabase(options: DatabaseOptions = {}): TestDatabaseAccess {
  let database: TestDatabase | null = null
  const pools: pg.Pool[] = []
  const current = (): TestDatabase => {
    if (!database) throw new Error('useDatabase() has its database only while tests run.')
    return database
  }
  beforeAll(async () => {
    database = await createDatabase(options)
  })
  afterAll(async () => {
    const stuck = (await Promise.all(pools.map(endPool))).filter((ended) => !ended).length
    await database?.drop()
    if (stuck > 0)
      throw new Error(`${stuck} of ${pools.length} pools did not end: a client was not released.`)
  })
  return {
    get url() {
      return current().url
    },
    get name() {
      return current().name
    },
    query: (sql, values) => current().query(sql, values),
    pool: (config = {}) => {
      const pool = createPool({ connectionString: current().url, ...config })
      pools.push(pool)
      return pool
    },
  }
}

/** Idle connections that a test or the drop cuts are news to the pool only; without a listener they end the process. */
function createPool(config: pg.PoolConfig): pg.Pool {
  return new pg.Pool(config).on('error', () => {})
}

/** false: it still waits for a client that nobody released. */
async function endPool(pool: pg.Pool): Promise<boolean> {
  // A test may have ended it; end() twice throws.
  if (pool.ending) return true
  const ended = pool.end().then(() => true)
  return Promise.race([ended, pause(poolEndMsMax, false, { ref: false })])
}

async function withAdmin(action: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  const admin = new pg.Client({ connectionString: inject('forgeDatabases').adminUrl })
  await admin.connect()
  try {
    await action(admin)
  } finally {
    await admin.end()
  }
}

async function clone(admin: pg.Client, statement: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await admin.query(statement)
      return
    } catch (error) {
      const busy = error instanceof pg.DatabaseError && error.code === objectInUse
      if (!busy || attempt === cloneTries) throw error
      await pause(50)
    }
  }
}
