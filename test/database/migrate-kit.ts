import { createHash } from 'node:crypto'
import { migrate, migrationStatus, quoteSchema } from '../../src/database/index.js'
import type { MigrateContext } from '../../src/database/migrate.js'
import type { Migration } from '../../src/database/migrations.gen.js'
import { systemClock } from '../../src/kernel/index.js'
import type { TestDatabaseAccess } from '../support/database.js'
import { sourceOf, warnings } from './kit.js'

/** Migrations as a version of the code carries them, from their SQL, numbered from 1. */
export function carrying(
  ...sql: readonly (string | { readonly sql: string; readonly requires: number })[]
): Migration[] {
  return sql.map((given, index) => {
    const text = typeof given === 'string' ? given : given.sql
    return {
      version: index + 1,
      name: `step${index + 1}`,
      requires: typeof given === 'string' ? 1 : given.requires,
      sql: text,
      checksum: createHash('sha256').update(text).digest('hex'),
    }
  })
}

interface Given extends Partial<Omit<MigrateContext, 'schema'>> {
  /** Unquoted. Default: forge. */
  readonly schema?: string
  readonly url?: string
}

/** A migrator of its own on the database, as each process has one. */
export function migrator(
  database: TestDatabaseAccess,
  { schema = 'forge', url = database.url, ...rest }: Given = {},
) {
  const { logger, heard } = warnings()
  const source = sourceOf({ connectionString: url })
  const context: MigrateContext = {
    source,
    schema: quoteSchema(schema),
    clock: systemClock,
    logger,
    waitMs: 20_000,
    ...rest,
  }
  return { migrate: () => migrate(context), status: () => migrationStatus(context), heard, source }
}

/** All that a migration could have left behind, row versions of the ledger included; null: not even the schema. */
export async function remains(database: TestDatabaseAccess, schema: string): Promise<unknown> {
  const there = await database.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema])
  if (there.length === 0) return null
  const objects = await database.query(
    `SELECT c.relname AS name, c.oid, c.xmin::text FROM pg_class c WHERE c.relnamespace = to_regnamespace($1) ORDER BY 1`,
    [`"${schema}"`],
  )
  const ledger = objects.some(({ name }) => name === 'migration')
  return {
    objects,
    ledger:
      ledger && (await database.query(`SELECT xmin::text, * FROM "${schema}".migration ORDER BY version`)),
  }
}

export async function versions(database: TestDatabaseAccess, schema: string): Promise<number[]> {
  const rows = await database.query<{ version: number }>(
    `SELECT version FROM "${schema}".migration ORDER BY version`,
  )
  return rows.map(({ version }) => version)
}
