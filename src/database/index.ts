/**
 * database: the host's PostgreSQL, tamed. forge's own clients are made from the host pool's options; each reserved
 * connection is a `Session` (one statement at a time, deadlines, destroyed when in doubt). The listener survives
 * outages of any length and says when it cannot hear. Migrations run under an advisory lock, in one transaction.
 */
export { type DrizzleTransaction, fromDrizzle } from './adapters/drizzle.js'
export { fromKnex, type KnexTransaction } from './adapters/knex.js'
export { fromKysely, type KyselyTransaction } from './adapters/kysely.js'
export { fromPrisma, type PrismaTransaction } from './adapters/prisma.js'
export { fromTypeOrm, type TypeOrmManager } from './adapters/typeorm.js'
export { type ListenerState } from './listener.js'
export { codeVersion, migrate, migrationSql, migrationStatus } from './migrate.js'
export { prepareDatabase } from './prepare.js'
export {
  connectionRoom,
  databaseClock,
  grantGaps,
  oldestTransaction,
  rolePrivileges,
  storageHints,
} from './queries.js'
export { checkSchemaName, quoteSchema } from './schema-name.js'
export { type Copy, type Run, Session, type SessionOptions } from './session.js'
export { PostgresSignals } from './signals.js'
export { ClientSource, type HostPool, type Pooler } from './source.js'
export { type RowOf, statement, type Statement, unprepared } from './statement.js'
export { transact, type TransactionOptions } from './transaction.js'
export { checkTx, onCommit, type Tx } from './tx.js'
export { poolFromUrl, type Target } from './url.js'
