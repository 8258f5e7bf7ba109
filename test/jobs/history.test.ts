import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ForgeNode } from '../../src/index.js'
import { quoteSchema, type Statement } from '../../src/database/index.js'
import * as change from '../../src/jobs/queries/change.js'
import * as explain from '../../src/jobs/queries/explain.js'
import * as list from '../../src/jobs/queries/list.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'

/*
 * With a long history everything that names jobs, and everything that asks for the few that did not complete, must stay
 * cheap. Counted in pages, not in time: the whole history has some 3,000.
 */
const database = useDatabase()
const many = 100_000
let node: ForgeNode
let client: pg.PoolClient
let ids: string[]
let parent: string

beforeAll(async () => {
  const { forge, attach } = setup(database)
  const job = forge.job('long', { queue: 'long', retry: { attempts: 1 }, run: () => null })
  node = await attach({ queues: { long: false } })
  parent = (await job.enqueue({}, { delay: '1h' })).id
  await database.query(
    `insert into forge.job_history (id, lane, state, priority, attempt, attempts_max, crashes, claims, run_at, created_at,
            expires_on, input, parent)
     select ('01990000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, l.id,
            case n % 10000 when 1 then 7 when 2 then 6 else 5 end, 50, 1, 1, 0, 1, now(), now(),
            (now() at time zone 'UTC')::date + 8, '{}', case when n % 50000 = 7 then $1::uuid end
     from generate_series(1, ${many}) as n, forge.job_lane l`,
    [parent],
  )
  await database.query('analyze forge.job_history')
  const rows = await database.query<{ id: string }>(
    'select id from forge.job_history where state = 7 order by id',
  )
  ids = rows.map(({ id }) => id)
  client = await database.pool({ max: 1 }).connect()
  await client.query('set enable_seqscan = off; set jit = off')
})
afterAll(async () => {
  client.release(true)
  await node.stop()
})

type Value = string | number | null | readonly (string | number | undefined)[]

function literal(value: Value): string {
  if (value === null) return 'null'
  return pg.escapeLiteral(typeof value === 'object' ? `{${value.join(',')}}` : String(value))
}

/** Pages that the statement touches, planned as a session of forge would have it; what it changes is rolled back. */
async function pagesOf<Row>({ text, unprepared }: Statement<Row>, ...values: Value[]): Promise<number> {
  const mode = unprepared ? 'force_custom_plan' : 'force_generic_plan'
  await client.query(`prepare asked as ${text(quoteSchema('forge'))}`)
  await client.query(`begin; set local plan_cache_mode = ${mode}`)
  try {
    const { rows } = await client.query<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
      `explain (analyze, buffers, format json) execute asked (${values.map(literal).join(', ')})`,
    )
    const plan = rows[0]?.['QUERY PLAN'][0].Plan ?? {}
    return (plan['Shared Hit Blocks'] ?? 0) + (plan['Shared Read Blocks'] ?? 0)
  } finally {
    await client.query('rollback; deallocate asked')
  }
}

describe('beside 100,000 finished jobs', () => {
  const any = [null, null, null, null, null]

  it('what names one reads next to nothing', async () => {
    const one = [ids[0]]
    const asked: [string, number][] = [
      ['get', await pagesOf(list.listJobsById, null, ...any, one, 1)],
      ['retry', await pagesOf(change.retryFinished, one, [6, 7, 8])],
      ['inputs', await pagesOf(change.inputsToRetry, one, ['long'])],
      ['explain', await pagesOf(explain.standingOfJob, ids[0] as string)],
      ['states', await pagesOf(list.statesOfJobs, one)],
      ['poll', await pagesOf(list.pollJobs, one, one)],
    ]
    // Measured: 20 to 120, most of them for the empty partitions.
    expect(asked.filter(([, pages]) => pages > 300)).toEqual([])
  })

  it('the list of dead letters, and of children, reads no more than it shows', async () => {
    const dead = await pagesOf(list.listJobs, [7, 8], null, 'long', null, null, null, null, 50)
    const children = await pagesOf(list.listJobs, null, null, null, null, null, parent, null, 50)
    expect([dead < 300, children < 300]).toEqual([true, true])
    const filter = { name: 'long', state: ['discarded', 'quarantined'] } as const
    expect((await node.jobs.list(filter)).map(({ id }) => id)).toEqual([...ids].reverse())
    expect(await node.jobs.list({ parent })).toHaveLength(2)
  })

  it('a retry by filter looks through what did not complete, and a change of waiting jobs not at history', async () => {
    const rest = [null, 'long', null, null, null, null, 1_000] as const
    expect(await pagesOf(list.findRetryable, [4, 6, 7, 8], ...rest)).toBeLessThan(300)
    expect(await pagesOf(list.findUnfinished, [0, 2], ...rest)).toBeLessThan(50)
    expect(await node.jobs.retry({ name: 'long', state: 'discarded' })).toMatchObject({
      ids,
      matching: ids.length,
    })
    expect(await node.jobs.cancel({ queue: 'long', state: 'available' })).toMatchObject({ ids })
  })

  it('a statement that reads all of it is found out', async () => {
    expect(await pagesOf(list.listJobs, [5], null, 'no.such', null, null, null, null, 50)).toBeGreaterThan(
      1_000,
    )
  })
})
