import {
  type Clock,
  codeOf,
  ForgeError,
  isForgeError,
  type Logger,
  messageOf,
  sleep,
} from '../kernel/index.js'
import { migrate, type MigrateContext, migrationStatus } from './migrate.js'
import { close, type ClientSource } from './source.js'

export interface PrepareContext {
  readonly source: ClientSource
  /** Quoted. */
  readonly schema: string
  readonly clock: Clock
  readonly logger: Logger
  readonly mode: 'auto' | 'check' | 'off'
  /** All of it, waiting for the server included. */
  readonly timeoutMs: number
}

/**
 * The first step of every start: waits for a server that is not up yet, then sees to the schema; from the beginning again
 * when the connection breaks on the way.
 * @throws ForgeError FORGE_DATABASE_AUTH, FORGE_DATABASE_MISSING, FORGE_SERVER_TOO_OLD at once;
 * FORGE_DATABASE_UNREACHABLE when the time is over; FORGE_MIGRATION_PENDING and what `migrate` throws
 */
export async function prepareDatabase(context: PrepareContext): Promise<void> {
  const until = context.clock.monotonicMs() + context.timeoutMs
  await alive(prepareUntil(context, until))
}

async function prepareUntil(context: PrepareContext, until: number): Promise<void> {
  for (;;) {
    await reach(context, until)
    try {
      return await seeToSchema(context, until)
    } catch (error) {
      // What it was doing was rolled back, or is found done.
      const broke =
        isForgeError(error, 'FORGE_CONNECTION_LOST') || isForgeError(error, 'FORGE_DATABASE_UNREACHABLE')
      if (!broke || context.clock.monotonicMs() >= until) throw error
      context.logger.debug(`forge: the connection broke while the schema was prepared: ${messageOf(error)}`)
      await sleep(context.clock, 100)
    }
  }
}

async function seeToSchema(context: PrepareContext, until: number): Promise<void> {
  const { source, schema, clock, logger, mode } = context
  const waitMs = Math.max(1_000, until - clock.monotonicMs())
  const given: MigrateContext = { source, schema, clock, logger, waitMs }
  if (mode === 'auto') {
    const { applied, version } = await migrate(given)
    if (applied.length > 0) logger.info(`forge: applied ${applied.join(', ')}; the schema is at ${version}`)
    return
  }
  const { pending } = await migrationStatus({ ...given, checksums: mode === 'check' })
  if (pending.length > 0) throw new ForgeError('FORGE_MIGRATION_PENDING', `${pending.join(', ')}.`)
}

async function reach(context: PrepareContext, until: number): Promise<void> {
  const { clock, source, logger } = context
  const leftMs = (): number => Math.max(1, until - clock.monotonicMs())
  for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 1_000)) {
    try {
      const limits = { statementMs: 10_000, lockMs: 5_000, connectMs: Math.max(leftMs(), 250) }
      return await close(await source.connect('forge:start', limits))
    } catch (error) {
      if (!isForgeError(error, 'FORGE_DATABASE_UNREACHABLE') || clock.monotonicMs() >= until) throw error
      logger.debug(`forge: PostgreSQL is not there yet (${codeOf(error.cause)})`)
      await sleep(clock, Math.min(waitMs, leftMs()))
    }
  }
}

/** No socket is open between two tries, and the clock's timers are not counted: the process would end in the middle. */
async function alive<T>(work: Promise<T>): Promise<T> {
  const hold = setInterval(() => {}, 60_000)
  return work.finally(() => clearInterval(hold))
}
