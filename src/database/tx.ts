import { ForgeError } from '../kernel/index.js'
import { adapterFor } from './adapters/foreign.js'

/**
 * What forge needs of a transaction: node-postgres' own `query(text, values)`. A pg client inside BEGIN … COMMIT, the
 * `tx` of `node.transaction`, or an adapter around another library's transaction.
 */
export interface Tx {
  query(text: string, values?: unknown[]): Promise<{ rows: unknown[]; rowCount?: number | null }>
}

/** On a `Tx` that an adapter made: the name of the adapter, for messages. */
export const adaptedBy = Symbol.for('forge.adaptedBy')

interface Suspect {
  readonly [adaptedBy]?: string
  readonly query?: unknown
  readonly connect?: unknown
  readonly totalCount?: unknown
  readonly getTransactionStatus?: () => string | null
}

/**
 * Refuses what cannot be the caller's open transaction, as far as the driver can tell, before any SQL is sent.
 * @throws ForgeError FORGE_TX_IS_POOL, FORGE_TX_FINISHED, FORGE_TX_INVALID
 */
export function checkTx(tx: unknown): Tx {
  const adapter = adapterFor(tx)
  if (adapter !== null) {
    throw new ForgeError(
      'FORGE_TX_INVALID',
      `An object of another library needs its adapter: ${adapter}(tx).`,
    )
  }
  const suspect = tx as Suspect | null | undefined
  if (typeof suspect !== 'object' || suspect === null || typeof suspect.query !== 'function') {
    throw new ForgeError('FORGE_TX_INVALID')
  }
  if (typeof suspect.connect === 'function' && typeof suspect.totalCount === 'number') {
    throw new ForgeError('FORGE_TX_IS_POOL')
  }
  if (typeof suspect.getTransactionStatus === 'function' && suspect.getTransactionStatus() !== 'T') {
    const about = suspect[adaptedBy] === undefined ? undefined : `${suspect[adaptedBy]}():`
    throw new ForgeError('FORGE_TX_FINISHED', about)
  }
  return tx as Tx
}

const afterCommit = Symbol.for('forge.afterCommit')

/** A transaction that forge itself commits, so that it knows the moment of the commit. */
export interface OwnTx extends Tx {
  readonly [afterCommit]: (hook: () => void) => void
}

/** Calls `hook` after the commit when forge makes that commit. False: somebody else commits, unseen. */
export function onCommit(tx: Tx, hook: () => void): boolean {
  const register = (tx as Partial<OwnTx>)[afterCommit]
  if (typeof register !== 'function') return false
  register(hook)
  return true
}

export function ownTx(query: Tx['query'], status: () => string, hooks: (() => void)[]): OwnTx {
  const tx = {
    query,
    getTransactionStatus: status,
    [afterCommit]: (hook: () => void) => void hooks.push(hook),
  }
  return tx
}
