/* The server that is measured: an embedded one with durable settings, or the one of DATABASE_URL. */
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { serverMeter } from './measure.mjs'

/** Settings that decide what figures mean; they are printed and stand on the page. */
const told = [
  'server_version',
  'fsync',
  'synchronous_commit',
  'full_page_writes',
  'shared_buffers',
  'max_wal_size',
  'autovacuum',
]

/** @returns what the scenarios need of the server; its parts end with `stage` */
export async function openServer(stage) {
  const given = process.env.DATABASE_URL
  const url = given || (await startOwn(stage))
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  stage.defer(() => client.end())
  const one = async (sql, values) => Object.values((await client.query(sql, values)).rows[0])[0]
  const counts = await countsStatements(client, { mayCreate: !given })
  const databases = openDatabases({ client, url, stage })
  return {
    about: given ? 'the server of DATABASE_URL' : 'a new embedded PostgreSQL',
    settings: await one(
      'select json_object_agg(name, current_setting(name) order by at) from unnest($1::text[]) with ordinality t(name, at)',
      [told],
    ),
    cpuSeconds: serverMeter(await one('select pg_backend_pid()')),
    walBytes: async () => Number(await one(`select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')`)),
    transactions: async (database) =>
      Number(
        await one('select xact_commit + xact_rollback from pg_stat_database where datname = $1', [database]),
      ),
    /** Null where the extension is not preloaded. */
    statements: async (database) => (counts ? Number(await one(callsOf, [database])) : null),
    ...databases,
  }
}

const callsOf = `select coalesce(sum(calls), 0) from pg_stat_statements s join pg_database d on d.oid = s.dbid
  where d.datname = $1`

async function startOwn(stage) {
  const { startEmbedded } = await import('forge/embedded')
  const starting = startEmbedded({
    dataDir: path.join(tmpdir(), `forge-bench-${process.pid}`),
    keep: false,
    maxConnections: 200,
    settings: { shared_preload_libraries: 'pg_stat_statements' },
  })
  // At once, not when it runs: the run may be ended before that.
  stage.defer(async () => (await starting.catch(() => null))?.[Symbol.asyncDispose]())
  return (await starting).url
}

/** Nothing is left behind on a server that is not ours: there the extension counts where it is. */
async function countsStatements(client, { mayCreate }) {
  try {
    if (mayCreate) await client.query('create extension if not exists pg_stat_statements')
    await client.query('select count(*) from pg_stat_statements')
    return true
  } catch {
    return false
  }
}

/** One fresh database per measurement, so that nobody meets what another left. */
function openDatabases({ client, url, stage }) {
  const open = new Set()
  let serial = 0
  const drop = async (database) => {
    await client.query(`drop database if exists ${database} with (force)`)
    open.delete(database)
  }
  stage.defer(async () => {
    for (const database of open) await drop(database)
  })
  return {
    async freshDatabase() {
      const database = `forge_bench_${process.pid}_${++serial}`
      open.add(database)
      await client.query(`create database ${database}`)
      await client.query('checkpoint').catch(() => {}) // Not every role may.
      const own = new URL(url)
      own.pathname = `/${database}`
      return { database, url: own.href, drop: () => drop(database) }
    },
  }
}

/** Runs `work` on a connection of its own. */
export async function withClient(url, work) {
  const client = new pg.Client({ connectionString: url }).on('error', () => {})
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}
