import { ForgeError } from '../kernel/index.js'

/**
 * A schema name that needs no quoting and cannot surprise: 1 to 63 of a-z, 0-9 and _, a letter first, not pg_…
 * `from` says where it was given, for the error.
 * @throws ForgeError FORGE_SCHEMA_NAME_INVALID
 */
export function checkSchemaName(name: unknown, from = 'The schema name'): string {
  if (typeof name === 'string' && /^[a-z][a-z0-9_]{0,62}$/.test(name) && !name.startsWith('pg_')) return name
  const shown = typeof name === 'string' ? `'${name.slice(0, 70)}'` : `of type ${typeof name}`
  throw new ForgeError('FORGE_SCHEMA_NAME_INVALID', `${from} is ${shown}.`)
}

/** Quoted all the same: reserved words such as "order" are fine names. */
export function quoteSchema(name: string): string {
  return `"${checkSchemaName(name)}"`
}
