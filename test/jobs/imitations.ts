import pg from 'pg'

/*
 * Prisma and TypeORM as far as an adapter meets them, on node-postgres: after the sources of prisma (getPrismaClient,
 * serializeRawParameters, the conversion of parameters in quaint) and of typeorm (PostgresQueryRunner, EntityManager).
 */

/** What Prisma's engine declares a parameter as: by its JavaScript value, whatever the statement would like. */
function declaredType(value: unknown): string {
  if (value === null || value === undefined) return 'unknown'
  if (Array.isArray(value)) {
    const types = new Set(value.map(declaredType))
    return types.size === 1 ? `${[...types][0]}[]` : 'unknown'
  }
  if (value instanceof Date) return 'timestamptz'
  if (value instanceof Uint8Array) return 'bytea'
  if (typeof value === 'number') return Number.isInteger(value) ? 'bigint' : 'float8'
  return { string: 'text', boolean: 'boolean', bigint: 'bigint', object: 'jsonb' }[typeof value as 'string']
}

class KnownRequestError extends Error {
  readonly code: string
  readonly meta: object

  constructor(message: string, code: string, meta: object) {
    super(message)
    this.name = 'PrismaClientKnownRequestError'
    this.code = code
    this.meta = meta
  }
}

function rawQueryFailed(error: unknown): never {
  const { code, message } = error as { code: string; message: string }
  throw new KnownRequestError(`Raw query failed. Code: \`${code}\`. Message: \`${message}\``, 'P2010', {
    code,
    message: `ERROR: ${message}`,
  })
}

let prepared = 0

/** One statement as Prisma's engine sends it: prepared with declared types. Answers with the rows alone. */
async function queryRaw(client: pg.ClientBase, text: string, values: readonly unknown[]): Promise<unknown[]> {
  const name = `imitation_${++prepared}`
  const types = values.length > 0 ? ` (${values.map(declaredType).join(', ')})` : ''
  const literals = values.map((value) => (value === null ? 'null' : pg.escapeLiteral(`${value as string}`)))
  await client.query(`prepare ${name}${types} as ${text}`).catch(rawQueryFailed)
  const args = literals.length > 0 ? ` (${literals.join(', ')})` : ''
  const { rows } = await client.query(`execute ${name}${args}`).catch(rawQueryFailed)
  await client.query(`deallocate ${name}`)
  return rows as unknown[]
}

export interface PrismaTransactionImitation {
  $queryRawUnsafe<T = unknown>(query: string, ...values: unknown[]): Promise<T>
}

/** A client with an interactive transaction, whose `tx` lacks what the client has for itself. */
export function imitatePrisma(pool: pg.Pool) {
  return {
    $connect: () => Promise.resolve(),
    $disconnect: () => Promise.resolve(),
    $queryRawUnsafe: <T = unknown>(query: string, ...values: unknown[]) =>
      pool.query(query, values).then(({ rows }) => rows as T),
    async $transaction<T>(work: (tx: PrismaTransactionImitation) => Promise<T>): Promise<T> {
      const client = await pool.connect()
      let open = true
      const tx: PrismaTransactionImitation = {
        $queryRawUnsafe: <R = unknown>(query: string, ...values: unknown[]) => {
          if (open) return queryRaw(client, query, values) as Promise<R>
          const message = 'Transaction API error: Transaction already closed'
          return Promise.reject(new KnownRequestError(message, 'P2028', {}))
        },
      }
      await client.query('begin')
      try {
        const result = await work(tx)
        open = false
        await client.query('commit')
        return result
      } catch (error) {
        open = false
        await client.query('rollback')
        throw error
      } finally {
        client.release()
      }
    },
  }
}

class QueryFailedError extends Error {
  readonly driverError: unknown

  constructor(driverError: unknown) {
    super((driverError as Error).message)
    // As TypeORM does: all of the driver's own properties, its code among them.
    const { name: _, ...own } = driverError as Record<string, unknown>
    Object.assign(this, own)
    this.driverError = driverError
    this.name = 'QueryFailedError'
  }
}

class QueryRunnerImitation {
  isReleased = false
  isTransactionActive = false
  readonly #client: pg.PoolClient

  constructor(client: pg.PoolClient) {
    this.#client = client
  }

  async query(text: string, parameters?: unknown[]): Promise<unknown> {
    if (this.isReleased) throw new Error('Query runner already released. Cannot run queries anymore.')
    const raw = await this.#client.query(text, parameters).catch((error: unknown) => {
      throw new QueryFailedError(error)
    })
    return ['DELETE', 'UPDATE'].includes(raw.command) ? [raw.rows, raw.rowCount] : raw.rows
  }

  async begin(): Promise<void> {
    this.isTransactionActive = true
    await this.query('START TRANSACTION')
  }

  async end(statement: 'COMMIT' | 'ROLLBACK'): Promise<void> {
    await this.query(statement)
    this.isTransactionActive = false
  }

  release(): void {
    this.isReleased = true
    this.#client.release()
  }
}

/** A data source with the manager of no transaction, and managers of transactions. */
export function imitateTypeOrm(pool: pg.Pool) {
  const dataSource = {
    createQueryRunner: () => ({}),
    query: async (text: string, parameters?: unknown[]): Promise<unknown> =>
      (await pool.query(text, parameters)).rows,
    get manager() {
      return { connection: dataSource, queryRunner: undefined, query: dataSource.query }
    },
    async transaction<T>(work: (manager: TypeOrmManagerImitation) => Promise<T>): Promise<T> {
      const queryRunner = new QueryRunnerImitation(await pool.connect())
      const query = (text: string, parameters?: unknown[]): Promise<unknown> =>
        queryRunner.query(text, parameters)
      try {
        await queryRunner.begin()
        const result = await work({ connection: dataSource, queryRunner, query })
        await queryRunner.end('COMMIT')
        return result
      } catch (error) {
        await queryRunner.end('ROLLBACK')
        throw error
      } finally {
        queryRunner.release()
      }
    },
  }
  return dataSource
}

export interface TypeOrmManagerImitation {
  readonly connection: unknown
  readonly queryRunner: QueryRunnerImitation
  query(text: string, parameters?: unknown[]): Promise<unknown>
}
