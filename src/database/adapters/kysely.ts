import { messageOf } from '../../kernel/index.js'
import type { Tx } from '../tx.js'
import { adapt, notOfLibrary, notTheTransaction, recordOf } from './adapter.js'

/** The `trx` of Kysely's `db.transaction().execute((trx) => …)` or of `startTransaction()`, on its PostgreSQL dialect. */
export interface KyselyTransaction {
  readonly isTransaction: true
  withoutPlugins(): { executeQuery(query: never): Promise<{ readonly rows: unknown[] }> }
}

const name = 'fromKysely'
const wanted = 'the trx of db.transaction().execute((trx) => …)'

/**
 * A Kysely transaction as `tx`: `welcome.enqueue(input, { tx: fromKysely(trx) })`. Kysely's plugins do not see the
 * statements: one that renames columns would hide the answer from forge.
 * @throws ForgeError FORGE_TX_IS_POOL for the database itself, FORGE_TX_INVALID for anything else
 */
export function fromKysely(trx: KyselyTransaction): Tx {
  const { withoutPlugins, isTransaction } = recordOf(trx)
  if (typeof withoutPlugins !== 'function' || typeof isTransaction !== 'boolean')
    throw notOfLibrary(name, trx, wanted)
  if (!isTransaction) throw notTheTransaction(name, wanted)
  const plain = trx.withoutPlugins()
  return adapt({
    name,
    query: async (text, values) => (await plain.executeQuery(compiled(text, values) as never)).rows,
    isEnd: (error) => /^Transaction is already (committed|rolled back)/.test(messageOf(error)),
    ...('isCommitted' in trx ? { status: () => controlledStatus(trx) } : {}),
  })
}

/** A transaction of `startTransaction()` says what became of it; one of `execute()` only when it is asked to run something. */
function controlledStatus(trx: object): string {
  const { isCommitted, isRolledBack } = recordOf(trx)
  return isCommitted === true || isRolledBack === true ? 'I' : 'T'
}

/** What `CompiledQuery.raw(text, values)` makes, without Kysely at hand. */
function compiled(text: string, values: unknown[]): object {
  const query = Object.freeze({
    kind: 'RawNode',
    sqlFragments: Object.freeze([text]),
    parameters: Object.freeze([]),
  })
  return Object.freeze({ sql: text, parameters: values, query, queryId: Object.freeze({ queryId: 'forge' }) })
}
