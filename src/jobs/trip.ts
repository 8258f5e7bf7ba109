import type { Membership } from '../cluster/index.js'
import type { Session, Statement } from '../database/index.js'
import { randomId } from '../kernel/index.js'
import type { Plan } from './frontier.js'
import type { Position } from './lane-state.js'
import {
  claimJobs,
  claimJobsOfLanes,
  claimSuspect,
  exchangeJobs,
  exchangeJobsOfLanes,
  type TripRow,
} from './queries/claim.js'
import { completeClaim, completeJobs } from './queries/complete.js'
import type { ClaimedRow, JobRun } from './run.js'

/** A job that completed in the ordinary way. */
export interface Completed {
  readonly run: JobRun
  readonly value: unknown
  /** JSON text; null for a result of null. */
  readonly json: string | null
  readonly keepMs: number
}

/** What one trip takes along and is to bring. */
export interface Load {
  readonly done: readonly Completed[]
  /** What is to be claimed, of each queue. */
  readonly wanted: readonly Plan[]
  /** Tokens of claims whose jobs have all ended; they go with completed jobs only. */
  readonly spent: readonly string[]
}

export interface Brought {
  readonly rows: readonly ClaimedRow[]
  /** Of each lane of which something was taken, the position of the last. */
  readonly lasts: ReadonlyMap<number, Position>
  readonly token: string
  /** Length of their inputs as text, on average. */
  readonly inputBytes: number
  /** The transaction that claimed them; null when it is not known. */
  readonly stamp: string | null
  /** Ids of handed-in jobs that were not accepted. */
  readonly missed: ReadonlySet<string>
  /** Of each lane of which less was taken than asked for, what comes next there, if anything does. */
  readonly nexts: ReadonlyMap<number, Position>
}

/**
 * One trip to PostgreSQL: hands in what is completed and takes what comes next, in one statement and one commit. This
 * is all that the rest of the room knows of how jobs are claimed and completed.
 */
export async function trip(
  session: Session,
  { nodeId, epoch }: Pick<Membership, 'nodeId' | 'epoch'>,
  load: Load,
): Promise<Brought> {
  const { done, wanted, spent } = load
  const token = randomId()
  if (wanted.length === 0) return { ...nothing, token, missed: await handIn(session, done, spent) }
  const completion = done.length > 0 ? [...completionValues(done), literal(spent)] : []
  const claim = [nodeId, epoch, token, ...claimValues(wanted)]
  const [row] = await session.run(statementFor(wanted, done.length > 0), [...claim, ...completion])
  const rows = row ? readRows(row) : []
  return {
    rows,
    lasts: lastsOf(rows, row?.lasts),
    token,
    inputBytes: (row?.inputs?.length ?? 0) / Math.max(rows.length, 1),
    stamp: row?.stamp ?? null,
    missed: split(row?.missed),
    nexts: positions(row?.nexts),
  }
}

/** One job that lost its process before, if there is one in these lanes. */
export async function fetchSuspect(
  session: Session,
  { nodeId, epoch }: Pick<Membership, 'nodeId' | 'epoch'>,
  lanes: readonly number[],
): Promise<Pick<Brought, 'rows' | 'token' | 'stamp'>> {
  const token = randomId()
  const [row] = await session.run(claimSuspect, [nodeId, epoch, token, lanes])
  return { rows: row ? readRows(row) : [], token, stamp: null }
}

/** @returns the ids of those that were not accepted */
async function handIn(
  session: Session,
  done: readonly Completed[],
  spent: readonly string[],
): Promise<ReadonlySet<string>> {
  const [first] = done
  if (!first || alike(done) < done.length) {
    const [row] = await session.run(completeJobs, [...completionValues(done), literal(spent)])
    return split(row?.missed)
  }
  const { run, keepMs } = first
  const values = [tids(done), run.token, run.stamp, keepMs, literal(spent)]
  const accepted = (await session.run(completeClaim, values))[0]?.accepted ?? null
  if (accepted === null) return new Set()
  const ids = split(accepted)
  return new Set(done.map(({ run: { id } }) => id).filter((id) => !ids.has(id)))
}

/** How many of them, from the first on, can be handed in by the cheapest statement: one claim, no results, kept alike. */
export function alike(done: readonly Completed[]): number {
  const [first] = done
  if (!first || first.run.stamp === null) return 0
  const { run, keepMs } = first
  const other = done.findIndex(
    (each) =>
      each.json !== null ||
      each.run.stamp !== run.stamp ||
      each.run.token !== run.token ||
      each.keepMs !== keepMs,
  )
  return other < 0 ? done.length : other
}

const nothing = { rows: [], inputBytes: 0, lasts: new Map(), stamp: null, nexts: new Map() } as const
const idLength = 36

function readRows(row: TripRow): ClaimedRow[] {
  const { ids, odd, big } = row
  if (ids === null || row.inputs === null) return []
  const lanes = numbers(row.lanes)
  const facts = numbers(row.facts)
  const inputs = JSON.parse(row.inputs) as unknown[]
  const rows = ids.split(';').map((idAndTid, index) => {
    const attempts = (facts ? facts[index] : row.fact) as number
    return {
      id: idAndTid.slice(0, idLength),
      tid: idAndTid.slice(idLength),
      lane: (lanes ? lanes[index] : row.lane) as number,
      attempt: attempts & 0xffff,
      attempts_max: attempts >> 16,
      claims: attempts & 0xffff,
      input: inputs[index],
      crashes: 0,
      cancelled: false,
      gates: null,
      big: false,
    }
  })
  if (!odd && !big) return rows
  const more = new Map(odd?.map((each) => [each.id, each]))
  const large = split(big)
  return rows.map((row) => ({ ...row, ...more.get(row.id), big: large.has(row.id) }))
}

/** The rows come most due first: the last one of a lane has its due. */
function lastsOf(rows: readonly ClaimedRow[], json: string | null | undefined): Map<number, Position> {
  const found = new Map<number, Position>()
  if (rows.length === 0) return found
  const dues = JSON.parse(json ?? '[]') as number[]
  const ids = new Map(rows.map(({ lane, id }) => [lane, id]))
  for (let at = 0; at < dues.length; at += 2) {
    const lane = dues[at] as number
    found.set(lane, { due: dues[at + 1] as number, id: ids.get(lane) ?? '' })
  }
  return found
}

/** JSON array, three values to a lane: lane, due, id. */
function positions(json: string | null | undefined): Map<number, Position> {
  const values = JSON.parse(json ?? '[]') as (number | string)[]
  const found = new Map<number, Position>()
  for (let at = 0; at < values.length; at += 3)
    found.set(values[at] as number, { due: values[at + 1] as number, id: values[at + 2] as string })
  return found
}

function statementFor(wanted: readonly Plan[], handsIn: boolean): Statement<TripRow> {
  const [reading, second] = wanted.flatMap(({ readings }) => readings)
  // Of a lane that gives all it has nobody asks what comes next.
  const alone = !second && reading && reading.reads > 0 && reading.until === Number.POSITIVE_INFINITY
  if (alone) return handsIn ? exchangeJobs : claimJobs
  return handsIn ? exchangeJobsOfLanes : claimJobsOfLanes
}

/*
 * Arrays of numbers and ids as literals of our own: the driver escapes each element of a list, and that is what costs
 * most on this side when a trip carries hundreds.
 */
const literal = (items: readonly (string | number)[]): string => `{${items.join(',')}}`
const tids = (done: readonly Completed[]): string => literal(done.map(({ run }) => `"${run.tid}"`))
const quoted = (text: string | null): string =>
  text === null ? 'null' : `"${text.replace(/[\\"]/g, (character) => `\\${character}`)}"`

/** Claims and keeps are few: each job names the class that has its own. */
function completionValues(done: readonly Completed[]): unknown[] {
  const tokens: string[] = []
  const keeps: number[] = []
  const each = done.map(({ run, keepMs }) => {
    // From the newest on: neighbours mostly are of one claim and one definition.
    let known = tokens.length
    while (known > 0 && (tokens[known - 1] !== run.token || keeps[known - 1] !== keepMs)) known -= 1
    if (known > 0) return known
    keeps.push(keepMs)
    return tokens.push(run.token)
  })
  const results = done.every(({ json }) => json === null)
    ? null
    : literal(done.map(({ json }) => quoted(json)))
  const ids = literal(done.map(({ run }) => run.id))
  return [ids, tids(done), literal(each), results, literal(tokens), literal(keeps)]
}

const start = { due: 0, id: '00000000-0000-0000-0000-000000000000' }

function claimValues(wanted: readonly Plan[]): unknown[] {
  const each = wanted.flatMap(({ readings }) => readings)
  const plans = wanted.flatMap(({ readings }, at) => readings.map(() => at + 1))
  return [
    literal(each.map(({ lane }) => lane.id)),
    literal(each.map(({ reads }) => reads)),
    literal(each.map(({ from }) => (from ?? start).due)),
    literal(each.map(({ from }) => (from ?? start).id)),
    literal(each.map(({ until }) => until)),
    literal(plans),
    literal(wanted.map(({ n }) => n)),
  ]
}

const numbers = (list: string | null): number[] | null =>
  list === null ? null : (JSON.parse(`[${list}]`) as number[])

function split(ids: string | null | undefined): Set<string> {
  return new Set(ids ? ids.split(',') : [])
}
