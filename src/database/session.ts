import pg, { type Client, type CustomTypesConfig } from 'pg'
import {
  type Clock,
  ForgeError,
  isConnectionError,
  messageOf,
  type Timer,
  undone,
  within,
} from '../kernel/index.js'
import { copyIn } from './copy.js'
import { begin, commit, openTransaction, rollback } from './queries.js'
import { close, type ClientSource, destroy } from './source.js'
import type { Statement } from './statement.js'

export interface SessionOptions {
  /** What the connection is for; becomes the application_name `forge:<purpose>`. */
  readonly purpose: string
  /** Server-side limit of one statement; the client gives up, and destroys the connection, a little later. */
  readonly statementMs: number
  /** Server-side limit of a wait for a lock; default: as long as a statement, 5 s at most. */
  readonly lockMs?: number
  /**
   * Plan each statement once and for all. The server would plan long lists of values anew at each call, which costs more
   * than many of these statements themselves. For connections whose statements all stand in test/jobs/plans.test.ts.
   */
  readonly generic?: boolean
  /** For connections whose statements have riders: these are written at once, where pg can do so. */
  readonly pipeline?: boolean
  /** Close after so long without a call; it opens again at the next one. Absent: stays open. */
  readonly idleMs?: number
}

/** The quoted schema, and where clients and time come from. */
export interface SessionContext {
  readonly source: ClientSource
  readonly schema: string
  readonly clock: Clock
}

/** Runs statements inside one transaction of a session. */
export interface Run {
  <Row>(statement: Statement<Row>, values?: readonly unknown[]): Promise<Row[]>
}

/** Runs a COPY … FROM STDIN inside one transaction of a session: lines of text in chunks of any length. */
export interface Copy {
  (statement: Statement, chunks: Iterable<string>): Promise<void>
}

/**
 * A statement that goes out right behind another, in a transaction of its own that begins when the other has ended, well or
 * not. Nobody waits for it, except for the next statement of the session.
 */
export interface Rider {
  readonly statement: Statement
  readonly values: readonly unknown[]
  /** Called once, when it is answered or has failed. */
  readonly settled: (error: unknown) => void
}

const deadlineSlackMs = 2_000

/**
 * One reserved connection: opened when first used, one statement at a time, an error listener on it, a deadline on
 * every wait. A connection that fails or is late is destroyed and never used again; the next call opens another.
 */
export class Session {
  readonly #context: SessionContext
  readonly #options: SessionOptions
  readonly #texts = new Map<Statement<unknown>, string>()
  #client: Client | null = null
  #tail: Promise<unknown> = Promise.resolve()
  #riding: Promise<void> | null = null
  #idle: Timer | null = null
  #closed = false

  constructor(context: SessionContext, options: SessionOptions) {
    this.#context = context
    this.#options = options
  }

  get connected(): boolean {
    return this.#client !== null
  }

  /**
   * Runs one statement and returns its rows. `rider` is asked when the statement goes out.
   * @throws ForgeError FORGE_DEADLINE, FORGE_CONNECTION_LOST, FORGE_DATABASE_…, FORGE_STATEMENT_TIMEOUT,
   * FORGE_LOCK_TIMEOUT, FORGE_DISK_FULL; pg's own error for a refused statement
   */
  run<Row>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
    rider?: () => Rider | null,
  ): Promise<Row[]> {
    return this.#exclusively((client) => {
      const behind = rider?.()
      const answer = this.#alone(client, statement, values)
      if (behind) this.#riding = this.#ride(client, behind, answer)
      return answer
    })
  }

  /** Runs `work` in one READ COMMITTED transaction. What it is given must not be used after it has settled. */
  transaction<T>(work: (run: Run, copy: Copy) => Promise<T>): Promise<T> {
    return this.#exclusively((client) => this.#inTransaction(client, work))
  }

  get #lockMs(): number {
    return this.#options.lockMs ?? Math.min(this.#options.statementMs, 5_000)
  }

  /** Waits for the call in hand, then closes. Later calls are refused with FORGE_STOPPED. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#tail.catch(() => {})
    await this.#hangUp()
  }

  #exclusively<T>(work: (client: Client) => Promise<T>): Promise<T> {
    const turn = this.#tail.then(async () => {
      this.#idle?.cancel()
      if (this.#closed) throw new ForgeError('FORGE_STOPPED')
      const client = (this.#client ??= await this.#open())
      try {
        return await work(client)
      } catch (error) {
        throw this.#judge(error)
      } finally {
        this.#armIdle()
      }
    })
    this.#tail = turn.catch(() => {}).then(() => this.#riding)
    return turn
  }

  #alone<Row>(client: Client, statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    if (this.#context.source.pooler !== 'transaction') return this.#send(client, statement, values)
    return this.#inTransaction(client, (run) => run(statement, values))
  }

  async #ride(client: Client, rider: Rider, first: Promise<unknown>): Promise<void> {
    try {
      // A pooler may not take two at once, and makes several trips of one: there the rider comes behind the last.
      if (this.#context.source.pooler !== 'none') await first.catch(() => {})
      await this.#alone(client, rider.statement, rider.values)
      rider.settled(null)
    } catch (error) {
      rider.settled(this.#judge(error))
    } finally {
      this.#riding = null
    }
  }

  async #open(): Promise<Client> {
    const { purpose, statementMs, generic = false, pipeline = false } = this.#options
    const limits = { statementMs, lockMs: this.#lockMs, generic, pipeline }
    const client = await this.#context.source.connect(`forge:${purpose}`, limits)
    const forget = (): void => {
      if (this.#client === client) this.#client = null
    }
    client.once('end', forget)
    // Also an error that leaves the socket open, such as a message that nobody asked for.
    client.on('error', () => {
      forget()
      destroy(client)
    })
    return client
  }

  async #inTransaction<T>(client: Client, work: (run: Run, copy: Copy) => Promise<T>): Promise<T> {
    await this.#plain(client, begin)
    try {
      const limits = [this.#options.statementMs, this.#lockMs, 60_000].map(String)
      if (this.#context.source.pooler === 'transaction') await this.#send(client, openTransaction, limits)
      const result = await work(
        (statement, values) => this.#send(client, statement, values ?? []),
        (statement, chunks) => this.#inTime(copyIn(client, this.#text(statement), chunks), statement.name),
      )
      await this.#commit(client)
      return result
    } catch (error) {
      if (!isConnectionError(error) && this.#client === client)
        await this.#plain(client, rollback).catch(() => this.#drop())
      throw error
    }
  }

  async #commit(client: Client): Promise<void> {
    // Lost before COMMIT, which work may not have minded: nothing was sent, so nothing is unknown.
    if (this.#client !== client) throw new ForgeError('FORGE_CONNECTION_LOST')
    try {
      const { command } = await this.#inTime(client.query(commit), commit)
      // COMMIT of a transaction in which a statement failed answers ROLLBACK and raises nothing.
      if (command === 'ROLLBACK') throw new ForgeError('FORGE_TX_FINISHED', 'A statement of it had failed.')
    } catch (error) {
      if (!isConnectionError(error)) throw error
      this.#drop()
      throw new ForgeError('FORGE_COMMIT_UNKNOWN', undefined, { cause: error })
    }
  }

  async #send<Row>(client: Client, statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const text = this.#text(statement)
    // Prepared names live on a backend, so a pooler would mix them up.
    const prepared = this.#context.source.pooler === 'none' && !statement.unprepared
    const name = prepared ? { name: statement.name } : {}
    const query = client.query({ ...name, text, values: values as unknown[], types: ownTypes })
    return (await this.#inTime(query, statement.name)).rows as Row[]
  }

  #text(statement: Statement<unknown>): string {
    let text = this.#texts.get(statement)
    if (text === undefined) this.#texts.set(statement, (text = statement.text(this.#context.schema)))
    return text
  }

  async #plain(client: Client, text: string): Promise<void> {
    await this.#inTime(client.query(text), text)
  }

  #inTime<T>(promise: Promise<T>, label: string): Promise<T> {
    const ms = this.#options.statementMs + deadlineSlackMs
    // Dropped at once: work that swallows the error must not go on with this connection.
    const late = (): Error => {
      this.#drop()
      return new ForgeError('FORGE_DEADLINE', `${label}: ${ms} ms.`)
    }
    return within(promise, { clock: this.#context.clock, ms, late })
  }

  /** After a failure of the connection nothing is known about it: it goes, whatever it looks like. */
  #judge(error: unknown): unknown {
    if (!isConnectionError(error)) return undone(error)
    this.#drop()
    if (error instanceof ForgeError) return error
    return new ForgeError('FORGE_CONNECTION_LOST', `${messageOf(error)}.`, { cause: error })
  }

  #drop(): void {
    const client = this.#client
    this.#client = null
    if (client) destroy(client)
  }

  #armIdle(): void {
    const { idleMs } = this.#options
    if (idleMs === undefined) return
    this.#idle = this.#context.clock.timer(idleMs, () => {
      this.#tail = this.#tail.then(() => this.#hangUp())
    })
  }

  async #hangUp(): Promise<void> {
    this.#idle?.cancel()
    const client = this.#client
    this.#client = null
    if (client) await close(client)
  }
}

/** What forge's own statements give back, by type; a host may have set parsers of its own for the whole process. */
const parsers: Readonly<Record<number, (text: string) => unknown>> = {
  16: (text) => text === 't',
  20: Number,
  21: Number,
  23: Number,
  25: String,
  114: JSON.parse as (text: string) => unknown,
  701: Number,
  1184: readTimestamp,
  2950: String,
  3802: JSON.parse as (text: string) => unknown,
}

/** ISO style, which every session of ours sets: '2026-11-24 15:04:05.123456+00', '+05:30', and infinity. */
function readTimestamp(text: string): Date {
  return new Date(text.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00'))
}

const ownTypes: CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    parsers[oid] ??
    (pg.types.getTypeParser as (oid: number, format?: string) => unknown)(
      oid,
      format,
    )) as CustomTypesConfig['getTypeParser'],
}
