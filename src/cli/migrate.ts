import { migrate } from '../database/index.js'
import { type Answer, exits } from './answer.js'
import type { Station } from './station.js'

/** How long another migrator, or a long reader of a table that changes, is waited for. */
const waitMs = 60_000

/** Applies what is pending. Throws what `migrate` of database throws. */
export async function migrateCommand({ runtime }: Station): Promise<Answer> {
  const { db, clock, log, config } = runtime
  const { version, applied } = await migrate({
    source: db.source,
    schema: db.schema,
    clock,
    logger: log,
    waitMs,
  })
  const done = applied.length > 0 ? `applied ${applied.join(', ')}` : 'nothing to do'
  return {
    exit: exits.ok,
    text: `schema ${config.schema}: ${done}; it is at version ${version}`,
    document: { schema: config.schema, version, applied },
  }
}
