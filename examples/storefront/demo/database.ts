import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { startEmbedded, type EmbeddedOptions, type EmbeddedPostgres } from 'forge/embedded'
import pg from 'pg'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const name = 'storefront'

export interface DemoDatabase {
  readonly url: string
  /** For people. */
  readonly about: string
}

/** The database of DATABASE_URL as it is, or one on the embedded server, kept from run to run. */
export async function openDatabase(stage: AsyncDisposableStack): Promise<DemoDatabase> {
  const given = process.env.DATABASE_URL
  if (given) {
    await ask(given, (client) => client.query('select 1'))
    return { url: given, about: 'the one of DATABASE_URL' }
  }
  const server = await openServer(stage, {})
  await ask(server.url, async (client) => {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [name])
    if (rowCount === 0) await client.query(`create database ${name}`)
  })
  return { url: withDatabase(server.url, name), about: `embedded PostgreSQL, data in ${server.dataDir}` }
}

/** A new database that is gone afterwards, on the server of DATABASE_URL or on an embedded one of its own. */
export async function openFreshDatabase(stage: AsyncDisposableStack): Promise<DemoDatabase> {
  const given = process.env.DATABASE_URL
  if (!given) {
    const server = await openServer(stage, { keep: false })
    return { url: server.url, about: 'a new embedded PostgreSQL' }
  }
  // Named after the given one, so that its owner sees where it comes from should a crash leave it behind.
  const owner = decodeURIComponent(new URL(given).pathname.slice(1)).slice(0, 45) || name
  const fresh = `${owner}_load_${randomBytes(4).toString('hex')}`
  const quoted = pg.escapeIdentifier(fresh)
  await ask(given, (client) => client.query(`create database ${quoted}`))
  stage.defer(async () => {
    await ask(given, (client) => client.query(`drop database if exists ${quoted} with (force)`))
  })
  return { url: withDatabase(given, fresh), about: `database ${fresh} on the server of DATABASE_URL` }
}

async function openServer(stage: AsyncDisposableStack, options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const starting = startEmbedded({ cwd: root, ...options })
  // At once, not when it runs: the demo may be asked to end before that.
  stage.defer(async () => {
    const server = await starting.catch(() => null)
    await server?.[Symbol.asyncDispose]()
  })
  return starting
}

async function ask(url: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 })
  client.on('error', () => {})
  await client.connect().catch((error: Error) => {
    throw new Error(`the database cannot be reached: ${error.message || String(error)}`, { cause: error })
  })
  try {
    await work(client)
  } finally {
    await client.end()
  }
}

function withDatabase(url: string, database: string): string {
  const changed = new URL(url)
  changed.pathname = `/${encodeURIComponent(database)}`
  return changed.href
}
