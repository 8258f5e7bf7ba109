import { describe, expect, it } from 'vitest'
import { RetryAfter } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { markClaimed } from '../support/claimed.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }

describe('stop', () => {
  it('lets running jobs finish, starts no others, and hands nothing back that is done', async () => {
    const { forge, attach } = setup(database)
    const gate = deferred<void>()
    const ran: number[] = []
    const job = forge.job('draining', {
      queue: 'draining',
      async run(input: { i: number }) {
        ran.push(input.i)
        await gate.promise
      },
    })
    const node = await attach({ queues: { draining: { concurrency: 2 } } })
    await job.enqueueMany([0, 1, 2, 3, 4].map((i) => ({ i })))
    await until(() => ran.length === 2, { label: 'two run' })
    const stopping = node.stop({ timeout: '10s' })
    gate.resolve()
    await stopping
    expect(ran).toHaveLength(2)
    const states = await database.query(
      `select state, count(*)::int as n from forge.job j join forge.job_lane l on l.id = j.lane where name = 'draining' group by 1`,
    )
    expect(states).toEqual([{ state: 2, n: 3 }])
  })

  it('aborts what takes too long and hands it back without using an attempt', async () => {
    const { forge, attach } = setup(database)
    const reasons: unknown[] = []
    const job = forge.job('stubborn', {
      retry: { attempts: 1 },
      run: (_input: unknown, job) =>
        new Promise((_, reject) => {
          job.signal.addEventListener('abort', () => {
            reasons.push((job.signal.reason as { code?: string }).code)
            reject(new Error('aborted'))
          })
        }),
    })
    const deaf = forge.job('deaf', { retry: { attempts: 1 }, run: () => new Promise(() => {}) })
    const node = await attach()
    const ids = [(await job.enqueue({})).id, (await deaf.enqueue({})).id]
    await until(async () => (await node.jobs.list({ ids, state: 'running' })).length === 2, {
      label: 'both run',
    })
    await node.stop({ timeout: 0 })
    expect(reasons).toEqual(['FORGE_STOPPED'])
    const rows = await database.query('select state, attempt, crashes from forge.job where id = any($1)', [
      ids,
    ])
    expect(rows).toEqual([
      { state: 2, attempt: 0, crashes: 0 },
      { state: 2, attempt: 0, crashes: 0 },
    ])
    expect(await database.query('select 1 from forge.node where id = $1', [node.id])).toEqual([])
  })
})

describe('rescue', () => {
  it('takes back the jobs of a node whose lease ended, gives the attempt back and counts the crash', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('orphan', {
      run: (_input: unknown, job) => ({ attempt: job.attempt, n: job.fence.n }),
    })
    const first = await attach({ roles: ['gateway'], lease })
    const { id } = await job.enqueue({})
    await first.stop()
    await orphan([id], 0)
    await using node = await attach({ lease })
    await until(async () => (await node.jobs.get(id))?.state === 'completed', {
      label: 'rescued',
      deadlineMs: 15_000,
    })
    const stored = await node.jobs.get(id)
    expect(stored).toMatchObject({ attempt: 1, crashes: 1, result: { attempt: 1, n: 2 } })
    expect(stored?.errors[0]).toMatchObject({ name: 'LeaseLost', code: 'FORGE_LEASE_LOST' })
  })

  it('sets a job aside that lost its process three times, and retry brings it back', async () => {
    const { forge, attach } = setup(database)
    let ran = 0
    const job = forge.job('poison', { run: () => ++ran })
    const first = await attach({ roles: ['gateway'], lease })
    const handle = await job.enqueue({})
    await first.stop()
    await orphan([handle.id], 2)
    await using node = await attach({ lease })
    await until(async () => (await node.jobs.get(handle.id))?.state === 'quarantined', {
      label: 'quarantined',
    })
    expect(ran).toBe(0)
    expect(await node.jobs.get(handle.id)).toMatchObject({ crashes: 3, errors: [{ name: 'LeaseLost' }] })
    expect((await node.jobs.counts()).quarantined).toBe(1)
    await node.jobs.retry(handle.id)
    await until(async () => (await node.jobs.get(handle.id))?.state === 'completed', {
      label: 'ran after all',
    })
    expect(await node.jobs.get(handle.id)).toMatchObject({ crashes: 0, result: 1 })
  })

  it('keeps what it sets aside as long as its definition says, and for a day at least', async () => {
    const { forge, attach } = setup(database)
    const ten = forge.job('poison.kept', { keep: { discarded: '10d' }, run: () => null })
    const none = forge.job('poison.not.kept', { keep: { discarded: 0 }, run: () => null })
    const option = forge.job('poison.option', { run: () => null })
    const first = await attach({ roles: ['gateway'], lease })
    const ids: string[] = []
    for (const job of [ten, none, option]) ids.push((await job.enqueue({})).id)
    await first.stop()
    await orphan(ids, 2)
    await using node = await attach({ lease, retention: { discarded: '20d' } })
    await until(async () => (await node.jobs.list({ ids, state: 'quarantined' })).length === 3, {
      label: 'all are set aside',
    })
    const rows = await database.query<{ id: string; days: number }>(
      `select id, expires_on - (finished_at at time zone 'UTC')::date as days from forge.job_history
       where id = any($1)`,
      [ids],
    )
    const days = new Map(rows.map((row) => [row.id, row.days]))
    expect(ids.map((id) => days.get(id))).toEqual([11, 2, 21])
  })

  it('forgets the crashes of a job whose run ended by itself, not those of one that was handed back', async () => {
    const { forge, attach } = setup(database)
    const retry = { base: '1h' } as const
    const jobs = [
      forge.job('sound.polls', { run: (_input: unknown, job) => job.snooze('1h') }),
      forge.job('sound.fails', {
        retry,
        run(): never {
          throw new Error('no')
        },
      }),
      forge.job('sound.waits', {
        retry,
        run(): never {
          throw new RetryAfter('1h')
        },
      }),
      forge.job('sound.stopped', {
        priority: 'background',
        run: (_input: unknown, { signal }) =>
          new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted')))),
      }),
    ] as const
    const first = await attach({ roles: ['gateway'], lease })
    const ids: string[] = []
    for (const job of jobs) ids.push((await job.enqueue({})).id)
    await first.stop()
    await orphan(ids, 1)
    const node = await attach({ lease })
    const states = async (): Promise<unknown[]> => {
      const rows = await node.jobs.list({ ids })
      return ids.map((id) => rows.find((row) => row.id === id)?.state)
    }
    const settled = ['scheduled', 'retryable', 'retryable', 'running']
    await until(async () => (await states()).join() === settled.join(), {
      label: 'all are taken back and have begun',
      deadlineMs: 15_000,
    })
    await node.stop({ timeout: 0 })
    const rows = await database.query<{ id: string; crashes: number }>(
      'select id, crashes from forge.job where id = any($1)',
      [ids],
    )
    const crashes = new Map(rows.map((row) => [row.id, row.crashes]))
    expect(ids.map((id) => crashes.get(id))).toEqual([0, 0, 0, 2])
  })

  it('hands back what was claimed for a living node and never reached it', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('stray', { queue: 'stray', run: (_input: unknown, job) => job.attempt })
    await using node = await attach()
    const { id } = await job.enqueue({}, { delay: '1h' })
    const [row] = await database.query<{ epoch: string }>('select epoch from forge.node where id = $1', [
      node.id,
    ])
    await markClaimed(database, [id], { node: node.id, epoch: row?.epoch ?? '', agoMs: 16_000 })
    await until(async () => (await node.jobs.get(id))?.state === 'completed', { label: 'run after all' })
    expect(await node.jobs.get(id)).toMatchObject({ attempt: 1, crashes: 0, result: 1 })
  })

  /** As if a process had claimed these jobs and died: they run under a lease that is dead. */
  async function orphan(ids: readonly string[], crashes: number): Promise<void> {
    const [dead] = await database.query<{ node: string; epoch: string }>(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', 'gone', 1, '0', '{}', '{}', now() - interval '1 s')
       returning id as node, epoch`,
    )
    await markClaimed(database, ids, { ...dead, set: { crashes } })
  }
})

describe('history', () => {
  it('rests in the partition of the day on which it expires', async () => {
    const { forge, attach } = setup(database)
    const week = forge.job('kept.week', { run: () => 1 })
    const month = forge.job('kept.days', { keep: { completed: '30d' }, run: () => 1 })
    await using _node = await attach()
    const ids = [(await week.enqueue({})).id, (await month.enqueue({})).id]
    await until(async () => (await days(ids)).length === 2, { label: 'both finished' })
    expect(await days(ids)).toEqual([8, 31])
  })

  it('rests as long as its end, its definition and option retention say', async () => {
    const { forge, attach } = setup(database)
    const bang = (): never => {
      throw new Error('no')
    }
    const retry = { attempts: 1 }
    const keep = { completed: '3d', discarded: '5d' } as const
    const cancel = (_: unknown, { signal }: { readonly signal: AbortSignal }): Promise<null> =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve(null)))
    const jobs = [
      forge.job('kept.own', { keep, run: () => 1 }),
      forge.job('kept.lost', { keep, retry, run: bang }),
      forge.job('kept.stopped', { keep, run: cancel }),
      forge.job('kept.option', { run: () => null }),
      forge.job('kept.nobody', { retry, run: bang }),
    ] as const
    await using node = await attach({ retention: { completed: '10d', discarded: '20d' } })
    const ids: string[] = []
    for (const job of jobs) ids.push((await job.enqueue({})).id)
    await until(async () => (await node.jobs.get(ids[2] as string))?.state === 'running', {
      label: 'it runs',
    })
    await node.jobs.cancel(ids[2] as string)
    await until(async () => (await days(ids)).length === ids.length, { label: 'all ended' })
    const each: number[] = []
    for (const id of ids) each.push(...(await days([id])))
    expect(each).toEqual([4, 6, 4, 11, 21])
  })

  it('keeps nothing of a job with keep 0, and result() says so', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('kept.not', { keep: { completed: 0 }, run: () => 1 })
    await using node = await attach()
    const handle = await job.enqueue({})
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_RESULT_NOT_KEPT' })
    expect(await node.jobs.get(handle.id)).toBeNull()
  })

  it('makes a missing partition when a completion needs it', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('partition.gone', { keep: { completed: '3d' }, run: () => 'kept' })
    await using _node = await attach()
    const [row] = await database.query<{ part: string }>(
      `select 'job_history_' || to_char((now() at time zone 'UTC')::date + 4, 'YYYYMMDD') as part`,
    )
    await until(() => exists(row?.part as string), { label: 'made at start' })
    await database.query(`drop table forge.${row?.part}`)
    expect(await (await job.enqueue({})).result()).toBe('kept')
    expect(await exists(row?.part as string)).toBe(true)
  })

  it('goes by whole partitions when its day is over, tally included', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('pruned', { run: () => 1 })
    const node = await attach()
    await (await job.enqueue({})).result()
    await node.stop()
    await makePastPartition()
    await using _again = await attach()
    await until(async () => !(await exists('job_history_20200102')), { label: 'dropped' })
    expect(await database.query(`select 1 from forge.job_tally where expires_on < '2021-01-01'`)).toEqual([])
    expect((await database.query('select 1 from forge.job_history limit 1')).length).toBe(1)
  })

  it('folds its tally without changing the counts', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('tallied', { run: () => 1 })
    const node = await attach()
    for (let i = 0; i < 5; i++) await (await job.enqueue({})).result()
    const before = (await node.jobs.counts()).completed
    await node.stop()
    await using again = await attach()
    await until(async () => (await tallyRows()) === (await tallyGroups()), { label: 'folded' })
    expect((await again.jobs.counts()).completed).toBe(before)
  })

  async function days(ids: readonly string[]): Promise<number[]> {
    const rows = await database.query<{ days: number }>(
      `select expires_on - (finished_at at time zone 'UTC')::date as days from forge.job_history
       where id = any($1) order by 1`,
      [ids],
    )
    return rows.map((row) => row.days)
  }

  async function exists(table: string): Promise<boolean> {
    const [row] = await database.query<{ there: boolean }>(`select to_regclass($1) is not null as there`, [
      `forge.${table}`,
    ])
    return row?.there === true
  }

  async function makePastPartition(): Promise<void> {
    await database.query(`create table forge.job_history_20200102 (like forge.job_history including all)`)
    await database.query(
      `alter table forge.job_history attach partition forge.job_history_20200102
       for values from ('2020-01-02') to ('2020-01-03')`,
    )
    await database.query(`insert into forge.job_tally values (1, 5, '2020-01-02', 7)`)
  }

  const tallyRows = async (): Promise<number> =>
    (await database.query('select 1 from forge.job_tally')).length
  const tallyGroups = async (): Promise<number> =>
    (await database.query('select 1 from forge.job_tally group by lane, state, expires_on')).length
})
