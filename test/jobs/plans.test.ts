import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import pg from 'pg'
import { ClientSource, quoteSchema, Session, type Statement, statement } from '../../src/database/index.js'
import * as change from '../../src/jobs/queries/change.js'
import * as claim from '../../src/jobs/queries/claim.js'
import { insertFull, insertMany, removeFinishedTwins } from '../../src/jobs/queries/enqueue.js'
import { aheadOfJob, gateOfJob, serviceOfLane, standingOfJob } from '../../src/jobs/queries/explain.js'
import * as complete from '../../src/jobs/queries/complete.js'
import * as finish from '../../src/jobs/queries/finish.js'
import * as look from '../../src/jobs/queries/look.js'
import * as limits from '../../src/jobs/queries/limits.js'
import { pollJobs, statesOfJobs } from '../../src/jobs/queries/list.js'
import * as queues from '../../src/jobs/queries/queues.js'
import { forgetClaims, quarantineJobs, rescueJobs } from '../../src/jobs/queries/upkeep.js'
import { systemClock } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'

/*
 * The hot table is empty at one moment and full at the next, and statistics come late. Whatever the planner believes,
 * what runs for every batch must not read the whole of it.
 */
const database = useDatabase()

const nobody = '00000000-0000-4000-8000-000000000000'
const ids = [nobody]

type Scalar = string | number | boolean | null
type Value = Scalar | readonly Scalar[]

/** A claim of lanes 1 and 2 from their start, and one completed job. */
const wanted = [
  nobody,
  nobody,
  nobody,
  [1, 2],
  [5, 5],
  [0, 0],
  [nobody, nobody],
  [9e9, 9e9],
  [1, 1],
  [10],
] as const
const completed = [ids, ['(0,1)'], [1], null, ids, [1_000], ids] as const

/** The statements that run all the time, with values that touch nothing. */
const hot: readonly (readonly [Statement<unknown>, ...Value[]])[] = [
  [claim.claimJobs, ...wanted],
  [claim.claimJobsOfLanes, ...wanted],
  [claim.exchangeJobs, ...wanted, ...completed],
  [claim.exchangeJobsOfLanes, ...wanted, ...completed],
  [claim.claimSuspect, nobody, nobody, nobody, [1, 2]],
  [look.readInput, nobody, nobody],
  [complete.completeJobs, ...completed],
  [complete.completeClaim, ['(0,1)'], nobody, '3/4', 1_000, ids],
  [limits.promoteDue],
  [limits.nextGates, '', 10],
  [limits.admitJobs, ['c/none', 'r/none=1', 'q/none']],
  [queues.lookAtQueues, nobody],
  [look.lookAround, [1, 2], ids, nobody, ids, ids, nobody],
  [look.releaseStrays, ids, nobody],
  [finish.finishJobs, ids, ids, [5], [null], [false], [null], [null], [1_000], false],
  [finish.putBackJobs, ids, ids, [2], [0], [0], [null]],
  [finish.currentClaims, ids, ids],
  [finish.lockClaim, nobody, nobody],
  [finish.saveProgress, nobody, nobody, null],
  [rescueJobs, 3],
  [quarantineJobs, 3, 1_000, ['work'], [1_000]],
  [forgetClaims],
  [insertMany, [], [], [], [], [], [], []],
  [insertFull, [], [], [], [], [], [], [], [], [], []],
  [removeFinishedTwins, ids],
  [pollJobs, ids, ids],
  [statesOfJobs, ids],
  [standingOfJob, nobody],
  [serviceOfLane, 1],
  [aheadOfJob, nobody, 1_000],
  [gateOfJob, nobody, 1_000],
  [change.lockJobs, ids, [0]],
  [change.markCancelled, ids, 'x'],
  [change.retryWaiting, ids],
  [change.rescheduleJobs, ids, [0], 1, null, null],
]

let pool: pg.Pool
let session: Session

beforeAll(async () => {
  // The statistics of these tests are made here alone.
  await database.query('ALTER TABLE forge.job SET (autovacuum_enabled = false)')
  pool = database.pool({ max: 1 })
  const context = { source: new ClientSource(pool), schema: quoteSchema('forge'), clock: systemClock }
  session = new Session(context, { purpose: 'plans', statementMs: 30_000 })
})
afterAll(() => session.close())

beforeEach(async () => {
  await database.query('TRUNCATE forge.job')
  await database.query('ANALYZE forge.job')
})

const places = ['elsewhere', 'in lane 1', 'at the gates of lane 1'] as const

/** 50,000 jobs that a claim of lanes 1 and 2 must not look at, or that all stand in lane 1. */
async function fill(where: (typeof places)[number]): Promise<void> {
  if (where === 'at the gates of lane 1') return fillGates()
  const [lane, state, stage] =
    where === 'elsewhere'
      ? ['3 + n % 40', '(array[0, 2, 4])[1 + n % 3]', '(array[0, 2, 0])[1 + n % 3]']
      : ['1', '2', '2']
  await database.query(
    `INSERT INTO forge.job (id, lane, state, stage, priority, attempts_max, run_at, due, input)
     SELECT gen_random_uuid(), ${lane}, ${state}, ${stage}, 0, 5, now() + interval '1 day', now() + n * interval '1 ms', '{}'
     FROM generate_series(1, 50000) AS n`,
  )
}

/** As many that wait at 5,000 gates. */
async function fillGates(): Promise<void> {
  await database.query(
    `INSERT INTO forge.job (id, lane, state, stage, priority, attempts_max, due, input, gates, gate)
     SELECT gen_random_uuid(), 1, 1, 1, 0, 5, now() + n * interval '1 ms', '{}', array['c/x=' || n % 5000, 'q/x'], 'c/x=' || n % 5000
     FROM generate_series(1, 50000) AS n`,
  )
}

interface Node {
  readonly 'Node Type': string
  readonly 'Relation Name'?: string
  readonly 'Shared Hit Blocks'?: number
  readonly 'Shared Read Blocks'?: number
  readonly Plans?: readonly Node[]
}

interface Explained {
  readonly 'QUERY PLAN': readonly [{ readonly Plan: Node }]
}

function readsAll(node: Node): boolean {
  if (node['Node Type'] === 'Seq Scan' && node['Relation Name'] === 'job') return true
  return (node.Plans ?? []).some(readsAll)
}

function literal(value: Value): string {
  if (value === null) return 'null'
  if (typeof value !== 'object') return pg.escapeLiteral(String(value))
  return pg.escapeLiteral(`{${value.map((each) => JSON.stringify(String(each))).join(',')}}`)
}

/** Which of the statements, as the session has prepared them, would read the whole table now. */
async function offenders(): Promise<string[]> {
  const found: string[] = []
  for (const [{ name }, ...values] of hot) {
    const call = values.length > 0 ? `${name} (${values.map(literal).join(', ')})` : name
    const explain = statement<Explained>(`explain_${name}`, () => `explain (format json) execute ${call}`)
    const [row] = await session.run(explain)
    if (row && readsAll(row['QUERY PLAN'][0].Plan)) found.push(name)
  }
  return found
}

async function runAll(): Promise<void> {
  for (const [each, ...values] of hot) await session.run(each, values)
}

describe.each(['force_generic_plan', 'force_custom_plan', 'auto'])('with plan_cache_mode %s', (mode) => {
  beforeEach(async () => {
    await session.run(statement('plans_forget', () => 'discard plans'))
    await session.run(statement(`plans_${mode}`, () => `set plan_cache_mode = ${mode}`))
    // Often enough for the server to keep a general plan, if it likes one.
    for (let round = 0; round < 7; round++) await runAll()
  })

  test.each(places)('plans that were made for an empty table do for 50,000 jobs %s', async (where) => {
    await fill(where)
    expect(await offenders()).toEqual([])
  })

  test.each(places)('plans are as good when 50,000 jobs %s were counted', async (where) => {
    await fill(where)
    await database.query('ANALYZE forge.job')
    expect(await offenders()).toEqual([])
    await database.query('DELETE FROM forge.job')
    expect(await offenders()).toEqual([])
  })
})

test('without the settings of our sessions, as in a transaction of the caller, plans made for a full table are good', async () => {
  const client = await pool.connect()
  try {
    await client.query('SET plan_cache_mode = force_custom_plan')
    for (const analyse of [false, true]) {
      for (const where of places) {
        await database.query('TRUNCATE forge.job')
        await database.query('ANALYZE forge.job')
        await fill(where)
        if (analyse) await database.query('ANALYZE forge.job')
        for (const [{ text, name }, ...values] of hot) {
          const { rows } = await client.query<Explained>(
            `EXPLAIN (FORMAT JSON) ${text(quoteSchema('forge'))}`,
            values,
          )
          expect([name, where, analyse, rows[0] && readsAll(rows[0]['QUERY PLAN'][0].Plan)]).toEqual([
            name,
            where,
            analyse,
            false,
          ])
        }
      }
    }
  } finally {
    client.release(true)
  }
})

test.each(places)('a claim of ten beside 50,000 jobs %s touches few pages', async (where) => {
  const node = '00000000-0000-4000-8000-000000000001'
  await database.query(
    `INSERT INTO forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
     VALUES ($1, $1, 'active', 'h', 1, '1', '{}', '{}', now() + interval '1 hour') ON CONFLICT DO NOTHING`,
    [node],
  )
  await runAll()
  await fill(where)
  await database.query(
    `INSERT INTO forge.job (id, lane, state, stage, priority, attempts_max, due, input)
     SELECT gen_random_uuid(), 2, 2, 2, 0, 5, now() - interval '1 hour', '{}' FROM generate_series(1, 20)`,
  )
  // Of lane 1 only what comes next is looked up.
  const position = wanted.slice(5, 7)
  const call = [node, node, nobody, [1, 2], [0, 10], ...position, [-9e9, 9e9], ...wanted.slice(8)]
    .map(literal)
    .join(', ')
  const [row] = await session.run(
    statement<Explained>(
      `explain_claim_${where.length}`,
      () => `explain (analyze, buffers, format json) execute forge_claim_jobs_of_lanes (${call})`,
    ),
  )
  const plan = row?.['QUERY PLAN'][0].Plan
  const [{ n } = { n: 0 }] = await database.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM forge.job WHERE state = 3',
  )
  expect(n).toBe(10)
  expect((plan?.['Shared Hit Blocks'] ?? 0) + (plan?.['Shared Read Blocks'] ?? 0)).toBeLessThan(250)
})

test('a plan that reads the whole table is found out', async () => {
  const all = statement<Explained>(
    'plans_all',
    (s) => `explain (format json) select from ${s}.job where crashes = 1`,
  )
  const [row] = await session.run(all)
  expect(row && readsAll(row['QUERY PLAN'][0].Plan)).toBe(true)
})
