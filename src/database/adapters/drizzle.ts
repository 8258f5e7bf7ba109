import type { Tx } from '../tx.js'
import { adapt, notOfLibrary, notTheTransaction, recordOf } from './adapter.js'

/** The `tx` of Drizzle's `db.transaction((tx) => …)`, of any of its PostgreSQL drivers. */
export interface DrizzleTransaction {
  execute(query: never): PromiseLike<unknown>
  /** What the database itself does not have. */
  rollback(): never
}

const name = 'fromDrizzle'
const wanted = 'the tx of db.transaction((tx) => …)'

/**
 * A Drizzle transaction as `tx`: `welcome.enqueue(input, { tx: fromDrizzle(tx) })`. Statements pass Drizzle's logger.
 * @throws ForgeError FORGE_TX_IS_POOL for the database itself, FORGE_TX_INVALID for anything else
 */
export function fromDrizzle(tx: DrizzleTransaction): Tx {
  const { execute, rollback, transaction } = recordOf(tx)
  if (typeof execute !== 'function') throw notOfLibrary(name, tx, wanted)
  if (typeof rollback !== 'function') {
    throw typeof transaction === 'function' ? notTheTransaction(name, wanted) : notOfLibrary(name, tx, wanted)
  }
  const client = recordOf(recordOf(recordOf(recordOf(tx)._).session).client)
  return adapt({
    name,
    query: async (text, values) => rowsOf(await tx.execute(written(text, values) as never)),
    ...(typeof client.getTransactionStatus === 'function'
      ? { status: () => (client as { getTransactionStatus(): string | null }).getTransactionStatus() }
      : {}),
  })
}

/** What Drizzle asks of a piece of SQL, answered with text and values as they are: `sql` would take them apart. */
function written(text: string, values: unknown[]): object {
  const sql = { getSQL: () => sql, toQuery: () => ({ sql: text, params: values }), shouldInlineParams: false }
  return sql
}

/** node-postgres, PGlite and Neon answer with an object, postgres.js with the rows. */
function rowsOf(answer: unknown): readonly unknown[] {
  return Array.isArray(answer) ? answer : ((answer as { rows?: unknown[] }).rows ?? [])
}
