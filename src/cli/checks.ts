import { type Check, ok } from './check.js'
import { clusterJudges } from './checks-cluster.js'
import type { ClockReading, Facts, Ledger, Room } from './facts.js'

/** Judges are pure: they say what the facts mean, and what to do. */
type Judge = (facts: Facts) => Check

/** The ledger is there, and not for this role. */
const denied = 'FORGE_MIGRATION_DENIED'
const skewMsMax = 2_000
/** A busy worker has up to six connections, and a deploy runs two processes side by side for a while. */
const roomMin = 12
const holderMsMax = 5 * 60_000

/** Every check that these facts allow, in the order of the report. */
export function judge(facts: Facts): readonly Check[] {
  const judges: readonly Judge[] = [
    ({ target, role }) => ok('connection', `${target}, as ${role.role}`),
    ({ serverVersion }) => ok('server', `PostgreSQL ${versionText(serverVersion)}`),
    judgePooler,
    ({ ledger, schema }) => judgeLedger(ledger, schema),
    judgePrivileges,
    ({ clock }) => judgeClock(clock, clock.machine),
    ({ room }) => judgeRoom(room),
    judgeListen,
    judgeHistory,
    judgeOldest,
    ...(facts.cluster ? clusterJudges(facts.cluster) : []),
  ]
  return judges.map((one) => one(facts))
}

function versionText(number: number): string {
  return `${Math.floor(number / 10_000)}.${number % 10_000}`
}

function judgePooler({ pooler }: Facts): Check {
  if (pooler === 'none') return ok('pooler', 'none: each connection has a server process of its own')
  if (pooler === 'session') {
    return ok('pooler', 'session mode: everything works, without prepared statements')
  }
  return {
    name: 'pooler',
    state: 'warn',
    detail: 'transaction mode: no hints (LISTEN), each statement costs a transaction of its own',
    fix: 'Give forge a direct or a session-mode connection string; the app may keep the pooler.',
  }
}

function judgeLedger({ version, codeVersion, pending, failure }: Ledger, schema: string): Check {
  const name = 'migrations'
  if (failure) {
    const fix =
      failure.code === denied
        ? 'Grant the role what docs/privileges.md lists.'
        : 'Run the version of forge that migrated this schema, or a newer one.'
    return { name, state: 'fail', detail: failure.message, fix }
  }
  if (pending.length > 0) {
    const detail = `schema ${schema} is at ${version}; pending: ${pending.join(', ')}`
    return { name, state: 'fail', detail, fix: 'Run forge migrate as the owner of the schema.' }
  }
  if (version > codeVersion) {
    const detail = `schema ${schema} is at ${version}, newer than this code (${codeVersion}), which it allows`
    return {
      name,
      state: 'warn',
      detail,
      fix: 'Finish the deploy: bring every process to the newer version.',
    }
  }
  return ok(name, `schema ${schema} is at ${version}, as this code`)
}

function judgePrivileges({ role, gaps, ledger, schema }: Facts): Check {
  const name = 'privileges'
  const create = role.create ? 'may' : 'may not'
  const fix = 'Grant what docs/privileges.md lists, or run as the owner of the schema.'
  const started = ledger.version > 0 || ledger.failure?.code === denied
  if (started && !role.usage) {
    return { name, state: 'fail', detail: `${role.role} may not use schema ${schema}`, fix }
  }
  if (gaps.length > 0) {
    const lacks = gaps.map(({ object, missing }) => `${missing.join(', ')} on ${object}`).join('; ')
    return { name, state: 'fail', detail: `${role.role} lacks ${lacks}`, fix }
  }
  if (ledger.pending.length > 0 && !role.create) {
    const detail = `${role.role} may not create in this database, so it cannot migrate`
    return {
      name,
      state: 'fail',
      detail,
      fix: 'Run forge migrate with a role that may (docs/privileges.md).',
    }
  }
  const table = started ? 'usage, every table, every function' : 'nothing to use yet'
  return ok(name, `${role.role}${role.superuser ? ' (superuser)' : ''}: ${table}; ${create} create schemas`)
}

function judgeClock({ aheadMs, doubtMs }: ClockReading, machine: string): Check {
  const offMs = Math.abs(aheadMs) - doubtMs
  if (offMs < 100) return ok('clock', `${machine} and the database agree to 0.1 s`)
  const seconds = (Math.abs(aheadMs) / 1_000).toFixed(1)
  const detail = `${machine} is ${seconds} s ${aheadMs > 0 ? 'behind' : 'ahead of'} the database`
  if (offMs <= skewMsMax) return ok('clock', detail)
  const fix = `Set the clocks by NTP: that of ${machine}, or that of the database server. Leases and due times are the database's.`
  return { name: 'clock', state: 'warn', detail, fix }
}

function judgeRoom(room: Room): Check {
  const left = (max: number, used: number): number => (max < 0 ? Infinity : max - used)
  const free = Math.min(
    left(room.max - room.reserved, room.used),
    left(room.role_max, room.role_used),
    left(room.database_max, room.database_used),
  )
  const detail = `${room.used} of ${room.max} in use, ${room.reserved} reserved; ${free} left for this role`
  if (free >= roomMin) return ok('connections', detail)
  const fix = 'Raise max_connections (or the limit of the role or database), or run fewer or smaller pools.'
  return { name: 'connections', state: 'warn', detail, fix }
}

function judgeListen({ listening, pooler }: Facts): Check {
  if (listening === 'proven') return ok('listen', 'a notification came back')
  const why = pooler === 'transaction' ? 'the pooler swallows it' : 'none came back within 2 s'
  return {
    name: 'listen',
    state: 'warn',
    detail: `LISTEN does not work here: ${why}; nodes poll every second instead`,
    fix: 'Give forge a connection that reaches one server, directly or in session mode.',
  }
}

function judgeHistory({ history }: Facts): Check {
  const name = 'partitions'
  if (history === null) {
    return {
      name,
      state: 'warn',
      detail: 'not looked at: see migrations and privileges',
      fix: 'Mend those first.',
    }
  }
  const { missing, nodesAlive } = history
  if (missing.length === 0) return ok(name, 'history is ready for what finishes in the next 7 days')
  const detail = `no history partition for ${missing.slice(0, 5).join(', ')}${missing.length > 5 ? ' …' : ''}`
  if (nodesAlive === 0) {
    return { name, state: 'warn', detail, fix: 'Start a node: it makes them at its start, and every minute.' }
  }
  const fix = "Look at the nodes' log: the function job_history_partition(date) fails for them."
  return { name, state: 'fail', detail, fix }
}

function judgeOldest({ oldest }: Facts): Check {
  const name = 'transactions'
  if (!oldest || oldest.age_ms <= holderMsMax)
    return ok(name, 'none that this role can see is older than 5 minutes')
  return {
    name,
    state: 'warn',
    detail: `${oldest.who} is open for ${Math.round(oldest.age_ms / 60_000)} min (${oldest.state})${oldest.query ? `: ${oldest.query}` : ''}`,
    fix: 'End it: while it is open vacuum removes nothing, and the queue grows slow.',
  }
}
