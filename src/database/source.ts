import type { Client, ClientConfig, PoolConfig } from 'pg'
import { ForgeError, codeOf, messageOf } from '../kernel/index.js'
import { begin, commit, backendPid, openSession } from './queries.js'

/**
 * The pool of the host: a `pg.Pool`, told by its shape, so that the types of forge need none of pg's. Besides these
 * members forge reads the pool's options, to make clients of its own.
 */
export interface HostPool {
  connect(): Promise<HostClient>
  readonly totalCount: number
}

/** A client that a `HostPool` hands out. */
export interface HostClient {
  query(text: string, values?: unknown[]): Promise<{ rows: unknown[]; command: string }>
  release(destroy?: Error | boolean): void
  on(event: 'error', listener: (error: Error) => void): unknown
  off(event: 'error', listener: (error: Error) => void): unknown
}

/** How the server is reached: directly, through a pooler that keeps a backend per session, or one per transaction. */
export type Pooler = 'none' | 'session' | 'transaction'

/** Limits of a connection, in milliseconds: the server's for statements and locks, ours for the way to the first answer. */
export interface SessionLimits {
  readonly statementMs: number
  readonly lockMs: number
  /** Default and most: 5 s for the login, and as much for the first answer. */
  readonly connectMs?: number
  /** Each statement is planned once, whatever its values: see `SessionOptions`. */
  readonly generic?: boolean
  /** A statement may be written before the one in front of it is answered: see `Rider`. Versions of pg that cannot, wait. */
  readonly pipeline?: boolean
}

/** The oldest server that is supported, as server_version_num. */
const serverVersionMin = 150_000
const connectMsMax = 5_000

const shared = ['user', 'database', 'host', 'port', 'connectionString', 'ssl', 'options'] as const
const copied = [...shared, 'client_encoding', 'enableChannelBinding', 'sslnegotiation'] as const

/**
 * Makes forge's own clients from the host pool's options. The pool itself is left alone: it serves only clients that
 * the host hands over and `node.transaction`. Named properties are copied one by one, because pg hides `password`
 * and `ssl.key` from enumeration and a spread would lose them.
 */
export class ClientSource {
  readonly pool: HostPool
  /** A host that brings its own Client or stream: its clients cannot be made in another thread. */
  readonly custom: boolean
  /** Found out at the first connection through it; until then 'none'. */
  pooler: Pooler = 'none'
  serverVersion = 0
  readonly #open = new Set<Client>()
  #abandoned = false

  constructor(pool: HostPool) {
    this.pool = checkPool(pool)
    guardLogins(pool)
    const options = poolOptions(pool)
    this.custom = Boolean(options.Client ?? (options as ClientConfig).stream)
  }

  /** Connections of forge's own that are open now (the pulse thread's is counted by its owner). */
  get openCount(): number {
    return this.#open.size
  }

  /**
   * Drops every connection, at once and for good: whoever waits for an answer gets FORGE_CONNECTION_LOST, and connect()
   * is refused. For a stop that has waited long enough for a server that does not answer.
   */
  abandon(): void {
    this.#abandoned = true
    for (const client of this.#open) destroy(client)
  }

  /** The configuration of one client. `name` is its application_name, for pg_stat_activity. */
  config(name: string, connectMs = connectMsMax): ClientConfig {
    const options = poolOptions(this.pool) as Record<string, unknown>
    const config: Record<string, unknown> = {}
    for (const key of copied) if (options[key] !== undefined) config[key] = options[key]
    const { password, stream, ssl } = options
    if (password !== undefined) config.password = password
    // A copy with the key in plain sight: pg hides it again in its own, and the pulse thread is sent this one.
    if (isWithKey(ssl)) config.ssl = { ...ssl, key: ssl.key }
    if (stream !== undefined) config.stream = stream
    if (typeof config.connectionString === 'string')
      config.connectionString = ownString(config.connectionString)
    return {
      ...config,
      application_name: name,
      connectionTimeoutMillis: connectMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    }
  }

  /**
   * A connected client with an error listener and the session's limits set.
   * @throws ForgeError FORGE_DATABASE_UNREACHABLE, FORGE_DATABASE_AUTH, FORGE_DATABASE_MISSING, FORGE_SERVER_TOO_OLD
   */
  async connect(name: string, limits: SessionLimits): Promise<Client> {
    const connectMs = Math.min(limits.connectMs ?? connectMsMax, connectMsMax)
    const client = await this.#dial(name, connectMs, limits.pipeline)
    try {
      // A pooler answers the login by itself, also when there is no server behind it.
      await inTime(client, connectMs, this.#prepare(client, name, limits))
      return client
    } catch (error) {
      destroy(client)
      throw connectFailure(error)
    }
  }

  async #dial(name: string, connectMs: number, pipeline = false): Promise<Client> {
    if (this.#abandoned) throw new ForgeError('FORGE_STOPPED')
    const client = makeClient(this.pool, { ...this.config(name, connectMs), pipeline })
    // Without a listener a dropped connection would end the host's process.
    client.on('error', () => {})
    // pg's connect() stays without an answer when its client is ended meanwhile.
    const gone = new Promise<never>((_, reject) => {
      client.once('end', () => {
        this.#open.delete(client)
        reject(new Error('The connection was given up'))
      })
    })
    this.#open.add(client)
    try {
      await Promise.race([client.connect(), gone])
      return client
    } catch (error) {
      this.#open.delete(client)
      destroy(client)
      throw connectFailure(error)
    }
  }

  async #prepare(client: Client, name: string, limits: SessionLimits): Promise<void> {
    const named = (client as unknown as { processID: number | null }).processID ?? 0
    const plans = limits.generic ? 'force_generic_plan' : 'auto'
    const values = [named, name, String(limits.statementMs), String(limits.lockMs), '60000', plans]
    const { rows } = await client.query<{ pid: number; version: number; standby: boolean }>(
      openSession.text(''),
      values,
    )
    const seen = rows[0] as { pid: number; version: number; standby: boolean }
    if (seen.version < serverVersionMin) {
      throw new ForgeError('FORGE_SERVER_TOO_OLD', `The server is ${Math.floor(seen.version / 10_000)}.`)
    }
    if (seen.standby)
      throw new ForgeError('FORGE_DATABASE_UNREACHABLE', 'The server is a standby (read-only).')
    this.serverVersion = seen.version
    if (seen.pid === named) return
    if (this.pooler === 'none') this.pooler = await this.#poolerKind(client)
    if (this.pooler === 'session') await client.query(openSession.text(''), [seen.pid, ...values.slice(1)])
  }

  /**
   * Which kind of pooler: while our first connection stays open, a second one in a transaction is given a backend.
   * Only a transaction-mode pooler can give it the one that just served the first.
   */
  async #poolerKind(client: Client): Promise<Pooler> {
    const other = await this.#dial('forge:probe', connectMsMax)
    try {
      const first = await client.query<{ pid: number }>(backendPid.text(''))
      const second = await inTime(other, connectMsMax, pidInTransaction(other))
      return first.rows[0]?.pid === second ? 'transaction' : 'session'
    } finally {
      await close(other)
    }
  }
}

async function pidInTransaction(client: Client): Promise<number | undefined> {
  await client.query(begin)
  const { rows } = await client.query<{ pid: number }>(backendPid.text(''))
  await client.query(commit)
  return rows[0]?.pid
}

/** A client that is late is destroyed, which ends what waits for it. */
async function inTime<T>(client: Client, ms: number, work: Promise<T>): Promise<T> {
  const late = setTimeout(() => destroy(client), ms)
  try {
    return await work
  } finally {
    clearTimeout(late)
  }
}

/** @throws ForgeError FORGE_DATABASE_URL_INVALID */
/** Parameters of a connection string that pg would set over forge's own name and deadlines. */
const hostOnly =
  /^(application_name|fallback_application_name|(statement|lock|query|connect)_timeout|idle_in_transaction_session_timeout)=/

function ownString(text: string): string {
  const [base = '', query] = text.split(/\?(.*)/s)
  const kept = (query ?? '').split('&').filter((parameter) => parameter !== '' && !hostOnly.test(parameter))
  return kept.length > 0 ? `${base}?${kept.join('&')}` : base
}

function makeClient(pool: HostPool, config: ClientConfig): Client {
  const { Client: Made } = pool as unknown as { Client: new (config: ClientConfig) => Client }
  try {
    return new Made(config)
  } catch (error) {
    if (codeOf(error) !== 'ERR_INVALID_URL') throw error
    throw new ForgeError('FORGE_DATABASE_URL_INVALID', undefined, { cause: error })
  }
}

function isWithKey(ssl: unknown): ssl is { readonly key: unknown } {
  return typeof ssl === 'object' && ssl !== null && 'key' in ssl
}

function poolOptions(pool: HostPool): PoolConfig & { Client?: unknown } {
  return (pool as unknown as { options: PoolConfig & { Client?: unknown } }).options
}

/** Structural, since host and forge may hold two copies of pg. */
function checkPool(pool: unknown): HostPool {
  const candidate = pool as {
    options?: unknown
    Client?: unknown
    connect?: unknown
    ended?: boolean
    ending?: boolean
  }
  const right =
    typeof pool === 'object' &&
    pool !== null &&
    typeof candidate.options === 'object' &&
    candidate.options !== null &&
    typeof candidate.Client === 'function' &&
    typeof candidate.connect === 'function'
  if (!right) throw new ForgeError('FORGE_POOL_INVALID')
  if (candidate.ended || candidate.ending) throw new ForgeError('FORGE_POOL_ENDED')
  return pool as HostPool
}

const guarded = Symbol.for('forge.guarded')

/**
 * pg's pool takes its error listener off a new client before whoever waits for the client can put one on. An error that
 * comes in one packet with the end of the login (a backend that is terminated at once) would end the process: until that
 * turn of the event loop is over, this listener hears it. The client is of no use then, as its first query tells.
 */
function guardLogins(pool: HostPool): void {
  const host = pool as {
    [guarded]?: boolean
    on?: (event: 'connect', listener: (client?: Partial<HostClient>) => void) => unknown
  }
  if (host[guarded]) return
  Object.defineProperty(pool, guarded, { value: true })
  const quiet = (): void => {}
  host.on?.('connect', (client) => {
    if (!client?.on || !client.off) return
    client.on('error', quiet)
    setImmediate(() => client.off?.('error', quiet))
  })
}

/** Drops the connection without a word to the server: for one that is stuck or in an unknown state. */
export function destroy(client: Client): void {
  const stream = (client as unknown as { connection?: { stream?: { destroy?: () => void } } }).connection
    ?.stream
  stream?.destroy?.()
  client.end().catch(() => {})
}

/** A polite goodbye, cut short when the server does not take it within a second. */
export async function close(client: Client): Promise<void> {
  const late = setTimeout(() => destroy(client), 1_000)
  await client.end().catch(() => {})
  clearTimeout(late)
}

const authCodes = new Set(['28P01', '28000', '42501'])

/** The typed form of a failure to connect. */
function connectFailure(error: unknown): unknown {
  if (error instanceof ForgeError) return error
  const code = codeOf(error)
  const detail = `${messageOf(error)}.`
  if (code === '3D000') return new ForgeError('FORGE_DATABASE_MISSING', detail, { cause: error })
  if (authCodes.has(code) || /SASL|password/i.test(detail)) {
    return new ForgeError('FORGE_DATABASE_AUTH', detail, { cause: error })
  }
  return new ForgeError('FORGE_DATABASE_UNREACHABLE', detail, { cause: error })
}
