import { migrate, migrationSql } from '../database/index.js'
import { type Answer, exits } from './answer.js'
import type { Station } from './station.js'

/** How long another migrator, or a long reader of a table that changes, is waited for. */
const waitMs = 60_000

/** Applies what is pending, or shows it (`sql`). Throws what `migrate` of database throws. */
export async function migrateCommand(
  { runtime }: Station,
  { sql: shown }: { readonly sql: boolean },
): Promise<Answer> {
  const { db, clock, log, config } = runtime
  const context = { source: db.source, schema: db.schema, clock, logger: log, waitMs }
  if (shown) {
    const sql = await migrationSql(context)
    return {
      exit: exits.ok,
      text: sql.trimEnd() || `-- schema ${config.schema}: nothing to do`,
      document: { sql },
    }
  }
  const { version, applied } = await migrate(context)
  const done = applied.length > 0 ? `applied ${applied.join(', ')}` : 'nothing to do'
  return {
    exit: exits.ok,
    text: `schema ${config.schema}: ${done}; it is at version ${version}`,
    document: { schema: config.schema, version, applied },
  }
}
