import { codeOf, ForgeError, messageOf } from '../../kernel/index.js'
import { adaptedBy, type Tx } from '../tx.js'

interface Adapting {
  /** The function that the caller called, as in `fromKnex`. */
  readonly name: string
  /** Sends one statement of PostgreSQL's own form ($1, $2 …) inside the library's transaction. */
  readonly query: (text: string, values: unknown[]) => Promise<readonly unknown[]>
  /** What the driver underneath says of the transaction ('T': open), where it can be asked without a statement. */
  readonly status?: () => string | null
  /** Whether an error is the library's word for "this transaction has ended". */
  readonly isEnd?: (error: unknown) => boolean
}

/** The `Tx` around another library's transaction. Errors are those of the driver, not of the library's wrapping. */
export function adapt({ name, query, status, isEnd }: Adapting): Tx {
  const tx: Tx = {
    async query(text, values) {
      try {
        return { rows: [...(await query(text, values ?? []))] }
      } catch (error) {
        throw explain(error, name, isEnd)
      }
    },
  }
  Object.defineProperty(tx, adaptedBy, { value: name })
  if (status) Object.defineProperty(tx, 'getTransactionStatus', { value: status })
  return Object.freeze(tx)
}

function explain(error: unknown, name: string, isEnd: Adapting['isEnd']): unknown {
  const cause = driverError(error)
  if (codeOf(cause) === '25P02')
    return new ForgeError('FORGE_TX_FINISHED', `${name}(): a statement of it had failed.`, { cause: error })
  if (isEnd?.(error))
    return new ForgeError('FORGE_TX_FINISHED', `${name}(): ${messageOf(error)}.`, { cause: error })
  return cause
}

/** SQLSTATE: five digits and capital letters. */
const sqlState = /^[0-9A-Z]{5}$/

/** Libraries wrap what the server said, some with all parameters in their text; the code is what forge goes by. */
function driverError(error: unknown): unknown {
  if (sqlState.test(codeOf(error))) return error
  const { cause, driverError: driver } = recordOf(error)
  return [cause, driver].find((inner) => sqlState.test(codeOf(inner))) ?? error
}

/** Any value, to be looked into; never throws. */
export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  const isObject = (typeof value === 'object' && value !== null) || typeof value === 'function'
  return isObject ? (value as Record<string, unknown>) : {}
}

/** The database itself where its transaction was wanted. */
export function notTheTransaction(name: string, wanted: string): ForgeError {
  return new ForgeError('FORGE_TX_IS_POOL', `${name}() got the database itself; it wants ${wanted}.`)
}

/** Something else entirely, or a promise of the right thing. */
export function notOfLibrary(name: string, given: unknown, wanted: string): ForgeError {
  const promised = typeof recordOf(given).then === 'function'
  const what = promised ? 'a promise: await it first' : describe(given)
  return new ForgeError('FORGE_TX_INVALID', `${name}() wants ${wanted}; it got ${what}.`)
}

function describe(given: unknown): string {
  if (given === null || given === undefined) return String(given)
  if (typeof given !== 'object' && typeof given !== 'function') return `a ${typeof given}`
  const name: unknown = recordOf(recordOf(given).constructor).name
  return typeof name === 'string' && name !== '' ? `a value of type ${name.slice(0, 60)}` : 'another object'
}
