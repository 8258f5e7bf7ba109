import type { Client } from 'pg'
import {
  type Clock,
  codeOf,
  ForgeError,
  isConnectionError,
  isForgeError,
  type Logger,
  messageOf,
  sleep,
} from '../kernel/index.js'
import { migrations as carried, type Migration } from './migrations.gen.js'
import {
  begin,
  commit,
  createLedger,
  ledgerExists,
  lockMigrations,
  openTransaction,
  readLedger,
  recordMigration,
  rollback,
  useSchema,
} from './queries.js'
import { close, type ClientSource } from './source.js'
import type { Statement } from './statement.js'

export interface MigrateContext {
  readonly source: ClientSource
  /** Quoted. */
  readonly schema: string
  readonly clock: Clock
  readonly logger: Logger
  /** Gives up waiting for another migrator after so long. */
  readonly waitMs: number
  /** False skips the comparison of checksums. Default true. */
  readonly checksums?: boolean
  /** What this version of the code carries; another list only in tests. */
  readonly carried?: readonly Migration[]
}

export interface MigrationReport {
  /** The version of the schema now. */
  readonly version: number
  /** What this call applied, oldest first. */
  readonly applied: readonly string[]
  /** What is missing; empty unless the mode is 'check' or 'off'. */
  readonly pending: readonly string[]
}

interface LedgerRow {
  readonly version: number
  readonly name: string
  readonly checksum: string
  readonly requires: number
}

/** The newest migration that this code carries. */
export const codeVersion = carried.at(-1)?.version ?? 0

const lockMs = 2_000
const statementMs = 120_000

/**
 * Brings the schema to the version that this code carries: one transaction under an advisory lock, so that of many
 * processes that start at once one applies and the rest find it done, and a crash half-way leaves nothing.
 * @throws ForgeError FORGE_SCHEMA_TOO_NEW, FORGE_MIGRATION_CHANGED, FORGE_MIGRATION_DENIED, FORGE_MIGRATION_FAILED,
 * FORGE_CONNECTION_LOST, FORGE_DATABASE_…
 */
export async function migrate(context: MigrateContext): Promise<MigrationReport> {
  return withClient(context, async (client) => {
    const plan = await readPlan(client, context)
    if (plan.pending.length === 0) return report(plan.version, [])
    return applyPatiently(client, context)
  })
}

/** Compares only; writes nothing. Throws as `migrate` does when the ledger and the code cannot work together. */
export async function migrationStatus(context: MigrateContext): Promise<MigrationReport> {
  return withClient(context, async (client) => {
    const plan = await readPlan(client, context)
    return { version: plan.version, applied: [], pending: plan.pending.map(label) }
  })
}

/** The SQL of what is pending, in one transaction, with the ledger: for people who apply it with a tool of their own. */
export async function migrationSql(context: MigrateContext): Promise<string> {
  const plan = await withClient(context, (client) => readPlan(client, context))
  return plan.pending.length === 0 ? '' : scriptOf(plan.pending, context.schema)
}

async function withClient<T>(context: MigrateContext, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await context.source.connect('forge:migrate', { statementMs, lockMs })
  try {
    return await work(client)
  } catch (error) {
    throw failure(error)
  } finally {
    await close(client)
  }
}

async function readPlan(
  client: Client,
  context: MigrateContext,
): Promise<{ version: number; pending: Migration[] }> {
  const list = context.carried ?? carried
  const [there] = await send(client, ledgerExists, context)
  const ledger = there?.there ? await send(client, readLedger, context) : []
  compare(ledger, list, context)
  const applied = new Set(ledger.map((row) => row.version))
  return { version: ledger.at(-1)?.version ?? 0, pending: list.filter((item) => !applied.has(item.version)) }
}

/** Pure but for one line in the log: may this code work with this ledger? */
function compare(ledger: readonly LedgerRow[], list: readonly Migration[], context: MigrateContext): void {
  const codeVersion = list.at(-1)?.version ?? 0
  const newest = ledger.at(-1)?.version ?? 0
  const requires = Math.max(0, ...ledger.map((row) => row.requires))
  if (requires > codeVersion) {
    const detail = `The schema is at ${newest} and needs code of at least ${requires}; this is ${codeVersion}.`
    throw new ForgeError('FORGE_SCHEMA_TOO_NEW', detail)
  }
  for (const row of ledger) {
    const mine = list.find((item) => item.version === row.version)
    if (context.checksums !== false && mine && mine.checksum !== row.checksum)
      throw new ForgeError('FORGE_MIGRATION_CHANGED', `${label(row)}.`)
  }
  if (newest > codeVersion) {
    context.logger.warn(
      `forge: the schema is at ${newest}, newer than this code's ${codeVersion}; it allows this code`,
    )
  }
}

/** Another migrator, or a long reader of a table that changes, is waited for in short tries, so nobody queues long. */
async function applyPatiently(client: Client, context: MigrateContext): Promise<MigrationReport> {
  const until = context.clock.monotonicMs() + context.waitMs
  for (;;) {
    try {
      return await applyOnce(client, context)
    } catch (error) {
      const busy = codeOf(error) === '55P03' && context.clock.monotonicMs() < until
      if (!busy) throw error
      await sleep(context.clock, 100 + Math.random() * 400)
    }
  }
}

async function applyOnce(client: Client, context: MigrateContext): Promise<MigrationReport> {
  await client.query(begin)
  try {
    const limits = [String(statementMs), String(lockMs), '60000']
    await send(client, openTransaction, { ...context, values: limits })
    await send(client, lockMigrations, context)
    const plan = await readPlan(client, context)
    if (plan.pending.length > 0) await client.query(createLedger.text(context.schema))
    for (const migration of plan.pending) await applyMigration(client, context, migration)
    await client.query(commit)
    return report(Math.max(plan.version, plan.pending.at(-1)?.version ?? 0), plan.pending)
  } catch (error) {
    await client.query(rollback).catch(() => {})
    throw error
  }
}

async function applyMigration(client: Client, context: MigrateContext, migration: Migration): Promise<void> {
  await client.query(useSchema.text(context.schema))
  await client.query(migration.sql)
  const { version, name, checksum, requires } = migration
  await send(client, recordMigration, { ...context, values: [version, name, checksum, requires] })
}

function scriptOf(pending: readonly Migration[], schema: string): string {
  const each = pending.map(({ version, name, checksum, requires, sql }) => {
    const record = recordMigration
      .text(schema)
      .replace('$1, $2, $3, $4', `${version}, '${name}', '${checksum}', ${requires}`)
    return `-- ${label({ version, name })}\n${useSchema.text(schema)};\n${sql.trim()}\n${record};`
  })
  const before = [`begin`, lockMigrations.text(schema), createLedger.text(schema).trim().replace(/;$/, '')]
  return `${before.join(';\n')};\n\n${each.join('\n\n')}\n\ncommit;\n`
}

/** The schema and the values of one statement outside a session. */
async function send<Row>(client: Client, statement: Statement<Row>, call: Call): Promise<Row[]> {
  return (await client.query(statement.text(call.schema), call.values ?? [])).rows as Row[]
}

interface Call {
  readonly schema: string
  readonly values?: unknown[]
}

function failure(error: unknown): unknown {
  if (isForgeError(error)) return error
  const detail = `${messageOf(error)}.`
  if (isConnectionError(error)) return new ForgeError('FORGE_CONNECTION_LOST', detail, { cause: error })
  if (codeOf(error) === '42501') return new ForgeError('FORGE_MIGRATION_DENIED', detail, { cause: error })
  return new ForgeError('FORGE_MIGRATION_FAILED', detail, { cause: error })
}

function report(version: number, applied: readonly Migration[]): MigrationReport {
  return { version, applied: applied.map(label), pending: [] }
}

function label(item: { readonly version: number; readonly name: string }): string {
  return `${String(item.version).padStart(4, '0')}_${item.name}`
}
