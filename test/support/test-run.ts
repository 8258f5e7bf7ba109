import { randomInt } from 'node:crypto'
import pg from 'pg'

/**
 * One run of the test suite on a server that may be shared with other runs, or be somebody's own: every database of
 * a run is named `forge_test_<seconds since 1970>_<run>_…`, and an advisory lock on `<run>` says that the run lives.
 */
const prefix = 'forge_test_'
const namePattern = /^forge_test_(\d+)_(\d+)_/
/** Runs share one key space of locks, apart from the locks of forge itself. */
const lockClass = 1_718_186_597
const staleSeconds = 3_600

export interface TestRun {
  /** What the name of each database of this run begins with. */
  readonly prefix: string
  readonly template: string
  /** How to clone it: copying files is faster by far, if the server does not wait for the disk. */
  readonly strategy: 'file_copy' | 'wal_log'
  /** Drops all databases of this run. */
  end(): Promise<void>
}

/** Drops what dead runs left behind, takes the run's lock, and builds the template that databases are cloned from. */
export async function beginRun(
  adminUrl: string,
  prepareTemplate: (url: string) => Promise<void>,
): Promise<TestRun> {
  const admin = new pg.Client({ connectionString: adminUrl, application_name: 'forge test run' })
  admin.on('error', () => {})
  await admin.connect()
  try {
    await dropStale(admin)
    const run = randomInt(1, 2 ** 31)
    await admin.query('SELECT pg_advisory_lock($1, $2)', [lockClass, run])
    const { rows } = await admin.query<{ now: string; fsync: string }>(
      `SELECT extract(epoch FROM now())::bigint AS now, current_setting('fsync') AS fsync`,
    )
    const own = `${prefix}${rows[0]?.now}_${run}_`
    const strategy = rows[0]?.fsync === 'off' ? 'file_copy' : 'wal_log'
    const template = `${own}template`
    await admin.query(`CREATE DATABASE ${template} TEMPLATE template0 ENCODING 'UTF8'`)
    await prepareTemplate(databaseUrl(adminUrl, template))
    return { prefix: own, template, strategy, end: () => endRun(admin, own) }
  } catch (error) {
    await admin.end()
    throw error
  }
}

/** The same server, another database. */
export function databaseUrl(adminUrl: string, name: string): string {
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  return url.href
}

async function endRun(admin: pg.Client, own: string): Promise<void> {
  try {
    for (const name of await ownDatabases(admin)) if (name.startsWith(own)) await drop(admin, name)
  } finally {
    await admin.end()
  }
}

/** A run is dead when nobody holds its lock; the hour spares a run that has not taken its lock yet. */
async function dropStale(admin: pg.Client): Promise<void> {
  for (const name of await ownDatabases(admin)) {
    const [, seconds, run] = namePattern.exec(name) ?? []
    const { rows } = await admin.query<{ stale: boolean }>(
      `SELECT extract(epoch FROM now()) - $1::bigint > $2
         AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = $3 AND objid = $4) AS stale`,
      [seconds, staleSeconds, lockClass, run],
    )
    if (rows[0]?.stale) await drop(admin, name)
  }
}

async function ownDatabases(admin: pg.Client): Promise<string[]> {
  const { rows } = await admin.query<{ datname: string }>('SELECT datname FROM pg_database')
  return rows.map((row) => row.datname).filter((name) => namePattern.test(name))
}

async function drop(admin: pg.Client, name: string): Promise<void> {
  await admin.query(`DROP DATABASE IF EXISTS ${pg.escapeIdentifier(name)} WITH (FORCE)`)
}
