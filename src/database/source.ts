import { Socket } from 'node:net'
import type { Client, ClientConfig, Pool, PoolConfig } from 'pg'
import { ForgeError, codeOf, messageOf } from '../kernel/index.js'
import { begin, commit, backendPid, openSession } from './queries.js'

/** The pool of the host, as forge sees it. Other rooms name this type, so that only this one names pg. */
export type HostPool = Pool

/** How the server is reached: directly, through a pooler that keeps a backend per session, or one per transaction. */
export type Pooler = 'none' | 'session' | 'transaction'

/** Server-side limits of a connection, in milliseconds. */
export interface SessionLimits {
  readonly statementMs: number
  readonly lockMs: number
}

/** The oldest server that is supported, as server_version_num. */
const serverVersionMin = 150_000
const connectMs = 5_000

const shared = ['user', 'database', 'host', 'port', 'connectionString', 'ssl', 'options'] as const
const copied = [...shared, 'client_encoding', 'enableChannelBinding', 'sslnegotiation'] as const

/**
 * Makes forge's own clients from the host pool's options. The pool itself is left alone: it serves only clients that
 * the host hands over and `node.transaction`. Named properties are copied one by one, because pg hides `password`
 * and `ssl.key` from enumeration and a spread would lose them.
 */
export class ClientSource {
  readonly pool: Pool
  /** A host that brings its own Client or stream: its clients cannot be made in another thread. */
  readonly custom: boolean
  /** Found out at the first connection through it; until then 'none'. */
  pooler: Pooler = 'none'
  serverVersion = 0
  readonly #open = new Set<Client>()

  constructor(pool: Pool) {
    this.pool = checkPool(pool)
    const options = poolOptions(pool)
    this.custom = Boolean(options.Client ?? (options as ClientConfig).stream)
  }

  /** Connections of forge's own that are open now (the pulse thread's is counted by its owner). */
  get openCount(): number {
    return this.#open.size
  }

  /** The configuration of one client. `name` is its application_name, for pg_stat_activity. */
  config(name: string): ClientConfig {
    const options = poolOptions(this.pool) as Record<string, unknown>
    const config: Record<string, unknown> = {}
    for (const key of copied) if (options[key] !== undefined) config[key] = options[key]
    const { password, stream } = options
    if (password !== undefined) config.password = password
    if (stream !== undefined) config.stream = stream
    return {
      ...config,
      application_name: name,
      connectionTimeoutMillis: connectMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    }
  }

  /** A configuration whose socket the caller can destroy, for a client that somebody else makes. */
  configWithSocket(name: string): { config: ClientConfig; socket: () => Socket | undefined } {
    const config = this.config(name)
    if (config.stream) return { config, socket: () => undefined }
    let socket: Socket | undefined
    return { config: { ...config, stream: () => (socket = new Socket()) }, socket: () => socket }
  }

  /**
   * A connected client with an error listener and the session's limits set.
   * @throws ForgeError FORGE_DATABASE_UNREACHABLE, FORGE_DATABASE_AUTH, FORGE_DATABASE_MISSING, FORGE_SERVER_TOO_OLD
   */
  async connect(name: string, limits: SessionLimits): Promise<Client> {
    const client = await this.#dial(name)
    try {
      await this.#prepare(client, name, limits)
      return client
    } catch (error) {
      destroy(client)
      throw connectFailure(error)
    }
  }

  async #dial(name: string): Promise<Client> {
    const client = makeClient(this.pool, this.config(name))
    // Without a listener a dropped connection would end the host's process.
    client.on('error', () => {})
    client.once('end', () => this.#open.delete(client))
    this.#open.add(client)
    try {
      await client.connect()
      return client
    } catch (error) {
      this.#open.delete(client)
      destroy(client)
      throw connectFailure(error)
    }
  }

  async #prepare(client: Client, name: string, limits: SessionLimits): Promise<void> {
    const named = (client as unknown as { processID: number | null }).processID ?? 0
    const values = [named, name, String(limits.statementMs), String(limits.lockMs), '60000']
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
    const other = await this.#dial('forge:probe')
    try {
      const first = await client.query<{ pid: number }>(backendPid.text(''))
      await other.query(begin)
      const second = await other.query<{ pid: number }>(backendPid.text(''))
      await other.query(commit)
      return first.rows[0]?.pid === second.rows[0]?.pid ? 'transaction' : 'session'
    } finally {
      await close(other)
    }
  }
}

function makeClient(pool: Pool, config: ClientConfig): Client {
  const { Client: Made } = pool as unknown as { Client: new (config: ClientConfig) => Client }
  return new Made(config)
}

function poolOptions(pool: Pool): PoolConfig & { Client?: unknown } {
  return (pool as unknown as { options: PoolConfig & { Client?: unknown } }).options
}

/** Structural, since host and forge may hold two copies of pg. */
function checkPool(pool: unknown): Pool {
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
    typeof candidate.Client === 'function' &&
    typeof candidate.connect === 'function'
  if (!right) throw new ForgeError('FORGE_POOL_INVALID')
  if (candidate.ended || candidate.ending) throw new ForgeError('FORGE_POOL_ENDED')
  return pool as Pool
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
export function connectFailure(error: unknown): unknown {
  if (error instanceof ForgeError) return error
  const code = codeOf(error)
  const detail = `${messageOf(error)}.`
  if (code === '3D000') return new ForgeError('FORGE_DATABASE_MISSING', detail, { cause: error })
  if (authCodes.has(code) || /SASL|password/i.test(detail)) {
    return new ForgeError('FORGE_DATABASE_AUTH', detail, { cause: error })
  }
  return new ForgeError('FORGE_DATABASE_UNREACHABLE', detail, { cause: error })
}
