import { codeOf } from '../../kernel/index.js'
import type { Tx } from '../tx.js'
import { adapt, notOfLibrary, notTheTransaction, recordOf } from './adapter.js'

/** The `tx` of Prisma's `prisma.$transaction(async (tx) => …)`. */
export interface PrismaTransaction {
  $queryRawUnsafe(query: string, ...values: never[]): PromiseLike<unknown>
  /** What only the client itself has. */
  readonly $connect?: undefined
}

const name = 'fromPrisma'
const wanted = 'the tx of prisma.$transaction(async (tx) => …)'

/**
 * A Prisma interactive transaction as `tx`: `welcome.enqueue(input, { tx: fromPrisma(tx) })`.
 * @throws ForgeError FORGE_TX_IS_POOL for the client itself, FORGE_TX_INVALID for anything else
 */
export function fromPrisma(tx: PrismaTransaction): Tx {
  const { $queryRawUnsafe, $connect } = recordOf(tx)
  if (typeof $queryRawUnsafe !== 'function') throw notOfLibrary(name, tx, wanted)
  if (typeof $connect === 'function') throw notTheTransaction(name, wanted)
  return adapt({
    name,
    query: async (text, values) => {
      const rows = await tx.$queryRawUnsafe(text, ...(values.map(asText) as never[])).then(undefined, unwrap)
      return rows as unknown[]
    },
    // "Transaction API error: … already closed", also after its timeout.
    isEnd: (error) => codeOf(error) === 'P2028',
  })
}

/**
 * Prisma declares the type of each parameter by its JavaScript value: a list of text as text[], numbers as bigint, a list
 * of nothing but null as an error. Text is the one type that PostgreSQL casts to any other, and every parameter of forge's
 * statements carries its cast.
 */
function asText(value: unknown): string | null {
  if (value === null || value === undefined) return null
  if (Array.isArray(value)) return `{${value.map(element).join(',')}}`
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`
  if (typeof value === 'object') return JSON.stringify(value)
  return (value as string | number | boolean | bigint).toString()
}

/** One element of an array in PostgreSQL's own notation; an inner list is not quoted. */
function element(value: unknown): string {
  const text = asText(value)
  if (text === null) return 'NULL'
  return Array.isArray(value) ? text : `"${text.replace(/["\\]/g, '\\$&')}"`
}

/** A failed raw query is P2010; the server's own code lies deeper, in one place or the other by version. */
function unwrap(error: unknown): never {
  const meta = recordOf(recordOf(error).meta)
  const adapter = recordOf(recordOf(meta.driverAdapterError).cause)
  const state = [meta.code, adapter.originalCode].find((code) => typeof code === 'string')
  if (state === undefined) throw error
  const message = [meta.message, adapter.originalMessage].find((text) => typeof text === 'string')
  throw Object.assign(new Error(String(message ?? 'a statement failed'), { cause: error }), { code: state })
}
