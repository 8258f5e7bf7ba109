import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { ClientSource, quoteSchema, Session } from '../../src/database/index.js'
import type { ClaimedRow } from '../../src/jobs/run.js'
import type { JobRun } from '../../src/jobs/run.js'
import { type Completed, fetchSuspect, trip } from '../../src/jobs/trip.js'
import { systemClock } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'

const database = useDatabase()
const nobody = '00000000-0000-0000-0000-000000000000'

/** A node row with the given lease, and three available jobs in one lane. */
async function setup(node: { state?: string; leaseMs?: number } = {}) {
  const [id, epoch] = [randomUUID(), randomUUID()]
  await database.query(
    `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
     values ($1, $2, $3, 'here', 1, '0', '{}', '{}', clock_timestamp() + $4 * interval '1 ms')`,
    [id, epoch, node.state ?? 'active', node.leaseMs ?? 10_000],
  )
  const [lane] = await database.query<{ id: number }>(
    `insert into forge.job_lane (queue, name) values ($1, $1) returning id`,
    [id],
  )
  await database.query(
    `insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input)
     select gen_random_uuid(), $1, 2, 2, 50, 5, now() + i * interval '1 s', to_jsonb(i) from generate_series(1, 3) i`,
    [lane?.id],
  )
  const context = {
    source: new ClientSource(database.pool()),
    schema: quoteSchema('forge'),
    clock: systemClock,
  }
  const open = (): Session => new Session(context, { purpose: 'test', statementMs: 5_000 })
  const session = open()
  const start = { due: 0, id: nobody }
  type As = { epoch?: string; free?: number; from?: Session; until?: number }
  const claimWith = async (as: As = {}) => {
    const free = as.free ?? 10
    const reading = {
      lane: { id: lane?.id ?? 0, queue: id, name: id },
      reads: free,
      from: start,
      until: as.until ?? Number.POSITIVE_INFINITY,
      before: { bound: 0, unsure: false, unswept: false, sweptMs: 0 },
    }
    const member = { nodeId: id, epoch: as.epoch ?? epoch }
    const load = { done: [], spent: [], wanted: [{ queue: id, n: free, first: 0, readings: [reading] }] }
    return trip(as.from ?? session, member, load)
  }
  const claim = async (as?: As) => (await claimWith(as)).rows
  const suspect = async () => {
    const { rows } = await fetchSuspect(session, { nodeId: id, epoch }, [lane?.id ?? 0])
    return rows
  }
  const tokens = (): Promise<{ token: string }[]> =>
    database.query('select token::text from forge.job where lane = $1 and state = 3', [lane?.id])
  const handIn = async (done: readonly Completed[]) =>
    (await trip(session, { nodeId: id, epoch }, { done, spent: [], wanted: [] })).missed
  return { claim, claimWith, handIn, suspect, session, open, tokens, lane: lane?.id ?? 0 }
}

/** What `trip` needs of a finished run. Without a `stamp` it goes by its id as well as by its place. */
const finished = (
  row: ClaimedRow,
  token: string,
  { tid = row.tid, stamp = null, keepMs = 0 }: { tid?: string; stamp?: string | null; keepMs?: number } = {},
): Completed => ({
  run: { id: row.id, token, tid, stamp } as JobRun,
  value: null,
  json: null,
  keepMs,
})
const running = (token: string) =>
  database.query<{ id: string; tid: string }>(
    'select id, ctid::text as tid from forge.job where token = $1 order by due',
    [token],
  )

describe('handing in', () => {
  it('never ends another job of the claim that stands where a job stood before', async () => {
    const { claimWith, handIn, session } = await setup()
    const { rows, token } = await claimWith()
    const [first, second] = rows as [ClaimedRow, ClaimedRow]
    const missed = await handIn([finished(first, token, { tid: second.tid })])
    expect([...missed]).toEqual([first.id])
    expect(await running(token)).toHaveLength(3)
    await session.close()
  })

  it('never does by the transaction of the claim alone: what came to that place later came by another', async () => {
    const { claimWith, handIn, session } = await setup()
    const { rows, token, stamp } = await claimWith()
    const [first, second, third] = rows as [ClaimedRow, ClaimedRow, ClaimedRow]
    await database.query(`update forge.job set cancel_reason = 'moves it' where id = $1`, [first.id])
    const move = async (): Promise<void> => {
      // In each round: a snapshot elsewhere may have kept the place the last time.
      await database.query('vacuum forge.job')
      await database.query('update forge.job set attempts_max = attempts_max + 1 where id = $1', [second.id])
    }
    const tidOfSecond = async () => (await running(token)).find(({ id }) => id === second.id)?.tid
    for (let moves = 0; (await tidOfSecond()) !== first.tid; moves++) {
      expect(moves).toBeLessThan(100)
      await move()
    }
    expect([
      ...(await handIn([finished(first, token, { stamp }), finished(third, token, { stamp })])),
    ]).toEqual([first.id])
    expect((await running(token)).map(({ id }) => id)).toEqual([first.id, second.id])
    await session.close()
  })

  it('never does in a table that was written anew, where rows of the claim stand in each other’s places', async () => {
    // A snapshot elsewhere may keep the places from being free; then it is built again.
    const { built, claimed, done } = await until(rewritten, { label: 'a job stands where another one stood' })
    const { rows, token, stamp } = claimed
    expect(rows).toHaveLength(3)
    expect([...(await built.handIn([finished(done, token, { stamp })]))]).toEqual([done.id])
    expect(await running(token)).toHaveLength(3)
    await built.session.close()
  })

  /** A claim in a table that was written anew since, in which another job of the claim has the place of `done`. */
  async function rewritten() {
    const built = await setup()
    await database.query('create table public.mine as select * from forge.job where lane = $1', [built.lane])
    await database.query('truncate forge.job')
    // Places 1 to 4 are taken, and freed but for the second: there the claim puts its rows.
    await database.query(
      `insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input)
       select gen_random_uuid(), -i, 2, 2, 50, 5, now(), '0' from generate_series(1, 4) i`,
    )
    await database.query('insert into forge.job select * from public.mine order by due')
    await database.query('drop table public.mine')
    await database.query('delete from forge.job where lane in (-1, -3, -4)')
    await database.query('vacuum (index_cleanup on) forge.job')
    const claimed = await built.claimWith()
    await database.query('delete from forge.job where lane = -2')
    await database.query('vacuum full forge.job')
    const now = await running(claimed.token)
    const stood = (row: ClaimedRow) => now.some(({ id, tid }) => row.tid === tid && row.id !== id)
    const done = claimed.rows.find(stood)
    if (done) return { built, claimed, done }
    await built.session.close()
    return undefined
  }

  it('moves all of a claim to history at once, and counts them', async () => {
    const { claimWith, handIn, session } = await setup()
    const { rows, token, stamp } = await claimWith()
    await database.query(
      `select forge.job_history_partition((now() at time zone 'UTC')::date + n) from generate_series(0, 2) n`,
    )
    const done = rows.map((row) => finished(row, token, { stamp, keepMs: 60_000 }))
    expect([...(await handIn(done))]).toEqual([])
    expect(await running(token)).toEqual([])
    const [kept] = await database.query(
      `select count(*)::int as n, min(lane) as lane, min(finished_at - claimed_at) >= '0' as later, min(expires_on)::text as day,
              bool_and(state = 5 and attempt = 1 and input is not null and result is null) as whole
       from forge.job_history where token = $1`,
      [token],
    )
    const [tallied] = await database.query(
      'select lane, state, expires_on::text as day, n::int from forge.job_tally where lane = $1',
      [kept?.lane],
    )
    expect(kept).toMatchObject({ n: 3, later: true, whole: true })
    expect(tallied).toEqual({ lane: kept?.lane, state: 5, day: kept?.day, n: 3 })
    // A repeat, as after a connection that broke, ends nothing a second time.
    expect((await handIn(done)).size).toBe(3)
    await session.close()
  })

  it('leaves alone what was written to since its claim: it goes by another statement', async () => {
    const { claimWith, handIn, session } = await setup()
    const { rows, token } = await claimWith({ free: 2 })
    const [moved, other] = rows as [ClaimedRow, ClaimedRow]
    await database.query(`update forge.job set cancel_reason = 'moves it' where id = $1`, [moved.id])
    expect([...(await handIn([finished(moved, token), finished(other, token)]))]).toEqual([moved.id])
    await session.close()
  })
})

describe('the claim statement', () => {
  it('gives the most due jobs, up to the free slots, under the token of the claim', async () => {
    const { claim, claimWith, session, tokens } = await setup()
    const { rows, token } = await claimWith({ free: 2 })
    expect(rows.map((row) => row.input).sort()).toEqual([1, 2])
    expect(await tokens()).toEqual([{ token }, { token }])
    expect(rows.every((row) => row.attempt === 1 && row.claims === 1)).toBe(true)
    expect((await claim()).map((row) => row.input)).toEqual([3])
    expect(await claim()).toEqual([])
    await session.close()
  })

  it('tells what comes next when a lane is only looked at, or read as far as a point', async () => {
    const { claimWith, session } = await setup()
    const looked = await claimWith({ free: 0, until: Number.NEGATIVE_INFINITY })
    const [[lane, first] = []] = [...looked.nexts]
    expect(looked.rows).toEqual([])
    const [dues] = await database.query<{ all: number[] }>(
      `select array_agg(date_part('epoch', due) order by due) as all from forge.job where lane = $1`,
      [lane],
    )
    expect(first?.due).toBe(dues?.all[0])
    const read = await claimWith({ until: (dues?.all[1] ?? 0) + 0.1 })
    expect(read.rows.map((row) => row.input)).toEqual([1, 2])
    expect(read.nexts.get(lane ?? 0)?.due).toBe(dues?.all[2])
    await session.close()
  })

  it('leaves suspects to a claim of their own, which gives one', async () => {
    const { claim, suspect, session } = await setup()
    await database.query(`update forge.job set crashes = 2 where state = 2 and input <> '3'`)
    expect((await claim()).map((row) => row.input)).toEqual([3])
    expect((await suspect()).map((row) => row.input)).toEqual([1])
    expect((await suspect()).map((row) => row.input)).toEqual([2])
    await session.close()
  })

  it.each([
    ['the lease has expired', { leaseMs: -1 }, {}],
    ['the lease was declared dead', { state: 'dead' }, {}],
    ['the epoch is not the current one', {}, { epoch: randomUUID() }],
  ])('gives nothing when %s', async (_name, node, as) => {
    const { claim, session } = await setup(node)
    expect(await claim(as)).toEqual([])
    await session.close()
  })

  it('never gives one job to two claims that run side by side', async () => {
    const { claim, session, open } = await setup()
    const others = [open(), open(), open()]
    const claims = await Promise.all([session, ...others].map((from) => claim({ free: 2, from })))
    const ids = claims.flat().map((row) => row.id)
    expect(ids.length).toBeGreaterThan(0)
    expect(new Set(ids).size).toBe(ids.length)
    for (const one of [session, ...others]) await one.close()
  })
})
