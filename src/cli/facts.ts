import { hostname } from 'node:os'
import { listLeaders, listNodes } from '../cluster/index.js'
import {
  codeVersion,
  connectionRoom,
  databaseClock,
  grantGaps,
  type ListenerState,
  migrationStatus,
  oldestTransaction,
  type Pooler,
  rolePrivileges,
  storageHints,
} from '../database/index.js'
import { jobsOptions, keepDays, missingPartitions, orphanedClaims } from '../jobs/index.js'
import { codeOf, isConnectionError, messageOf, resolveOptions, silentLogger } from '../kernel/index.js'
import { environment, type Runtime } from '../runtime/index.js'
import { type Station, targetText } from './station.js'

/** What the doctor saw, before any judgement. Times in milliseconds. */
export interface Facts {
  readonly target: string
  readonly schema: string
  /** As PostgreSQL numbers itself: 180001. */
  readonly serverVersion: number
  readonly pooler: Pooler
  readonly ledger: Ledger
  readonly role: {
    readonly role: string
    readonly superuser: boolean
    readonly usage: boolean
    readonly create: boolean
  }
  readonly gaps: readonly { readonly object: string; readonly missing: readonly string[] }[]
  readonly clock: ClockReading & { readonly machine: string }
  readonly room: Room
  readonly listening: ListenerState
  readonly oldest: {
    readonly who: string
    readonly state: string
    readonly age_ms: number
    readonly query: string | null
  } | null
  /** Null where the tables are not there, or not for this role. */
  readonly history: { readonly missing: readonly string[]; readonly nodesAlive: number } | null
  /** As `history`. */
  readonly cluster: ClusterFacts | null
}

export interface ClusterFacts {
  readonly nodes: readonly {
    readonly host: string
    readonly roles: readonly string[]
    readonly state: 'joining' | 'active' | 'draining' | 'dead'
    readonly clockMs: number | null
  }[]
  /** Roles that somebody leads. */
  readonly led: readonly string[]
  readonly orphans: number
  readonly hints: readonly {
    readonly what: 'dead rows' | 'unused index'
    readonly name: string
    readonly dead: number
    readonly live: number
    readonly bytes: number
  }[]
}

/** The ledger as it was read; `failure` when it could not be, or does not fit this code. */
export interface Ledger {
  readonly version: number
  readonly codeVersion: number
  readonly pending: readonly string[]
  readonly failure: { readonly code: string; readonly message: string } | null
}

/** How far the database's clock is ahead of this machine's, known to within `doubtMs`. */
export interface ClockReading {
  readonly aheadMs: number
  readonly doubtMs: number
}

/** Connections; -1 is "no limit". */
export interface Room {
  readonly max: number
  readonly reserved: number
  readonly used: number
  readonly role_max: number
  readonly role_used: number
  readonly database_max: number
  readonly database_used: number
}

const clockReadings = 3
/** History is looked at for what finishes within so many days. */
const aheadDays = 7

/** Asks the database everything, once. Throws when it cannot be reached. */
export async function gather({ runtime, signals, target }: Station): Promise<Facts> {
  const { control, source } = runtime.db
  const [role] = await control.run(rolePrivileges)
  const [room] = await control.run(connectionRoom)
  const [oldest] = await control.run(oldestTransaction)
  const ledger = await readLedger(runtime)
  const gaps = await control.run(grantGaps)
  const clock = await readClock(runtime)
  await signals.start()
  const listening = signals.listening
  await signals.stop()
  const readable = ledger.failure === null && ledger.pending.length === 0 && gaps.length === 0
  return {
    target: targetText(target),
    schema: runtime.config.schema,
    serverVersion: source.serverVersion,
    pooler: source.pooler,
    ledger,
    role: role as Facts['role'],
    gaps,
    clock: { ...clock, machine: hostname() },
    room: room as Room,
    listening,
    oldest: oldest ?? null,
    history: readable && role?.usage ? await readHistory(runtime) : null,
    cluster: readable && role?.usage ? await readCluster(runtime) : null,
  }
}

async function readLedger({ db, clock }: Runtime): Promise<Ledger> {
  const given = { source: db.source, schema: db.schema, clock, logger: silentLogger, waitMs: 0 }
  try {
    return { ...(await migrationStatus(given)), codeVersion, failure: null }
  } catch (error) {
    if (isConnectionError(error)) throw error
    const failure = { code: codeOf(error), message: messageOf(error) }
    return { version: 0, codeVersion, pending: [], failure }
  }
}

/** The reading with the shortest trip is the most exact one: half of the trip is its doubt. */
async function readClock({ db, clock }: Runtime): Promise<ClockReading> {
  const readings: ClockReading[] = []
  for (let reading = 0; reading < clockReadings; reading++) {
    const sentMs = clock.monotonicMs()
    const [row] = await db.control.run(databaseClock)
    const doubtMs = (clock.monotonicMs() - sentMs) / 2
    readings.push({ aheadMs: (row?.wall_ms ?? 0) - (clock.wallMs() - doubtMs), doubtMs })
  }
  return readings.reduce((best, one) => (one.doubtMs < best.doubtMs ? one : best))
}

async function readCluster({ db, config }: Runtime): Promise<ClusterFacts> {
  const nodes = await db.control.run(listNodes)
  const [orphaned] = await db.control.run(orphanedClaims)
  return {
    nodes: nodes
      .filter(({ state }) => state !== 'dead')
      .map(({ host, roles, state, load }) => ({ host, roles, state, clockMs: load?.clockMs ?? null })),
    led: (await db.control.run(listLeaders, [null])).map(({ role }) => role),
    orphans: orphaned?.n ?? 0,
    hints: await db.control.run(storageHints, [config.schema]),
  }
}

async function readHistory({ db }: Runtime): Promise<Facts['history']> {
  const { retention } = resolveOptions({ retention: jobsOptions.retention }, {}, environment())
  const days = keepDays([retention.completed, retention.discarded])
  const missing = await db.control.run(missingPartitions, [days, aheadDays])
  const nodes = await db.control.run(listNodes)
  return {
    missing: missing.map(({ day }) => day),
    nodesAlive: nodes.filter(({ state }) => state !== 'dead').length,
  }
}
