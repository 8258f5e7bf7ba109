import type { Tx } from '../tx.js'
import { adapt, notOfLibrary, notTheTransaction, recordOf } from './adapter.js'

/** The `trx` of `knex.transaction((trx) => …)` or of `await knex.transaction()`, on the client `pg`. */
export interface KnexTransaction {
  isCompleted(): boolean
  readonly client: unknown
}

/** The node-postgres client that a transaction of Knex holds. */
interface Connection {
  query(text: string, values: unknown[]): Promise<{ readonly rows: unknown[] }>
}

interface KnexClient {
  readonly dialect: string
  /** In a transaction always the one that it began on. */
  acquireConnection(): Promise<Connection>
}

const name = 'fromKnex'
const wanted = "the trx of knex.transaction((trx) => …) on client 'pg'"

/**
 * A Knex transaction as `tx`: `welcome.enqueue(input, { tx: fromKnex(trx) })`. Statements go straight to the transaction's
 * connection, since `knex.raw` reads every `?` as a placeholder; so Knex's events (`query` …) do not show them.
 * @throws ForgeError FORGE_TX_IS_POOL for knex itself, FORGE_TX_INVALID for anything else
 */
export function fromKnex(trx: KnexTransaction): Tx {
  const { client, raw, isTransaction, isCompleted } = recordOf(trx)
  const { acquireConnection, dialect } = recordOf(client)
  if (typeof acquireConnection !== 'function' || typeof raw !== 'function')
    throw notOfLibrary(name, trx, wanted)
  if (isTransaction !== true || typeof isCompleted !== 'function') throw notTheTransaction(name, wanted)
  if (dialect !== 'postgresql') throw notOfLibrary(name, trx, wanted)
  return adapt({
    name,
    query: async (text, values) => {
      const connection = await (client as KnexClient).acquireConnection()
      return (await connection.query(text, values)).rows
    },
    status: () => (trx.isCompleted() ? 'I' : 'T'),
  })
}
