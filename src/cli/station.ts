import { poolFromUrl, type PostgresSignals, type Target } from '../database/index.js'
import { type Logger, resolveOptions } from '../kernel/index.js'
import { createRuntime, type Runtime, runtimeOptions } from '../runtime/index.js'
import type { Place } from './arguments.js'

/** What a command works with: connections of its own, and no node. Nothing connects until it is used. */
export interface Station {
  readonly runtime: Runtime
  readonly signals: PostgresSignals
  readonly target: Target
  close(): Promise<void>
}

/** @throws ForgeError FORGE_DATABASE_URL_INVALID, FORGE_SCHEMA_NAME_INVALID */
export function openStation(place: Place & { readonly logger: Logger }): Station {
  const { databaseUrl, schema, schemaFrom, logger } = place
  // The other options of this environment are those of nodes; a wrong one is theirs to complain of.
  const env = schemaFrom ? { [schemaFrom]: schema } : {}
  const config = resolveOptions(runtimeOptions, { ...(schemaFrom ? {} : { schema }), logger }, env)
  const { pool, target } = poolFromUrl(databaseUrl)
  const parts = createRuntime(pool, config)
  return { runtime: parts.runtime, signals: parts.signals, target, close: () => parts.close() }
}

export function targetText({ user, host, port, database }: Target): string {
  return `${user}@${host.startsWith('/') ? host : `${host}:${port}`}/${database}`
}
