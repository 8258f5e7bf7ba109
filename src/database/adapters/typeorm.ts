import type { Tx } from '../tx.js'
import { adapt, notOfLibrary, notTheTransaction, recordOf } from './adapter.js'

/** The part of a query runner that says where its transaction stands. */
interface Runner {
  readonly isTransactionActive: boolean
  readonly isReleased: boolean
}

/** The `manager` of TypeORM's `dataSource.transaction(async (manager) => …)`; `queryRunner.manager` does as well. */
export interface TypeOrmManager {
  query(query: string, parameters?: never[]): Promise<unknown>
  readonly queryRunner?: Runner | undefined
}

const name = 'fromTypeOrm'
const wanted = 'the manager of dataSource.transaction(async (manager) => …)'

/**
 * A TypeORM transaction as `tx`: `welcome.enqueue(input, { tx: fromTypeOrm(manager) })`.
 * @throws ForgeError FORGE_TX_IS_POOL for a manager outside of a transaction, FORGE_TX_INVALID for anything else
 */
export function fromTypeOrm(manager: TypeOrmManager): Tx {
  const { query, queryRunner, createQueryRunner, connection, dataSource } = recordOf(manager)
  if (typeof query !== 'function') throw notOfLibrary(name, manager, wanted)
  const runner = recordOf(queryRunner)
  if (typeof runner.isTransactionActive !== 'boolean') {
    const isTypeOrm =
      typeof createQueryRunner === 'function' || connection !== undefined || dataSource !== undefined
    throw isTypeOrm ? notTheTransaction(name, wanted) : notOfLibrary(name, manager, wanted)
  }
  return adapt({
    name,
    query: async (text, values) => rowsOf(await manager.query(text, values as never[])),
    status: () => (runner.isTransactionActive === true && runner.isReleased !== true ? 'T' : 'I'),
  })
}

/** Rows alone after SELECT and INSERT, `[rows, count]` after UPDATE and DELETE. */
function rowsOf(answer: unknown): readonly unknown[] {
  const list = (answer ?? []) as unknown[]
  return list.length === 2 && Array.isArray(list[0]) && typeof list[1] === 'number'
    ? (list[0] as unknown[])
    : list
}
