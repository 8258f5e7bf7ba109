import pg from 'pg'
import { ForgeError } from '../kernel/index.js'
import type { HostPool } from './source.js'

/** Where a connection string leads, without its password. */
export interface Target {
  readonly user: string
  readonly host: string
  readonly port: number
  readonly database: string
}

/**
 * A pool of a connection string, for the processes of forge's own that have no host. It connects nothing by itself.
 * @throws ForgeError FORGE_DATABASE_URL_INVALID; the string itself, which holds a password, is never shown
 */
export function poolFromUrl(connectionString: string): { readonly pool: HostPool; readonly target: Target } {
  if (!/^postgres(ql)?:\/\//i.test(connectionString) || isTorn(connectionString)) throw invalid()
  try {
    const { user = '', host, port, database = '' } = new pg.Client({ connectionString })
    return { pool: new pg.Pool({ connectionString }), target: { user, host, port, database } }
  } catch {
    throw invalid()
  }
}

/**
 * A password with `/`, `?` or `#` in it ends the address too early: what is left of the password would be taken for
 * the port or the database, and be shown in messages.
 */
function isTorn(connectionString: string): boolean {
  const [, address = '', rest = ''] = /^[^:]+:\/\/([^/?#]*)(.*)$/s.exec(connectionString) ?? []
  return !address.includes('@') && rest.includes('@')
}

function invalid(): ForgeError {
  return new ForgeError('FORGE_DATABASE_URL_INVALID')
}
