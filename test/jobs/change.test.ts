import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import type { ForgeNode, JobFilter } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { markClaimed } from '../support/claimed.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const nobody = '00000000-0000-7000-8000-000000000000'

/** A job that runs until its gate opens, and one that waits for an hour. */
async function oneOfEach(name: string) {
  const { forge, attach } = setup(database)
  const gate = deferred<void>()
  const slow = forge.job(`${name}.slow`, { run: () => gate.promise })
  const later = forge.job(`${name}.later`, { run: () => 'ran' })
  const node = await attach()
  const running = (await slow.enqueue({})).id
  await until(async () => (await node.jobs.get(running))?.state === 'running', { label: 'it runs' })
  const scheduled = (await later.enqueue({}, { delay: '1h' })).id
  return { node, gate, running, scheduled, later }
}

async function stateOf(id: string): Promise<Record<string, unknown> | undefined> {
  const [row] = await database.query(
    `select state, gate, gates, tags, parent, priority, run_at > now() + interval '30 min' as late,
            extract(epoch from run_at)::float8 * 1000 as run_ms,
            extract(epoch from due - run_at)::float8 as urgency from forge.job where id = $1`,
    [id],
  )
  return row
}

describe('a change that names jobs', () => {
  it('says of each that it does not apply to where it stands, and does the rest', async () => {
    const { node, gate, running, scheduled } = await oneOfEach('mixed')
    await using _node = node
    const retried = await node.jobs.retry([running, scheduled, nobody])
    expect(retried).toMatchObject({ ids: [], matching: 0, more: false, refused: [] })
    expect(retried.skipped).toEqual([
      { id: running, state: 'running' },
      { id: scheduled, state: 'scheduled' },
      { id: nobody, state: null },
    ])
    const discarded = await node.jobs.discard([running, scheduled.toUpperCase(), scheduled], 'not wanted')
    expect(discarded).toMatchObject({
      ids: [scheduled],
      matching: 1,
      skipped: [{ id: running, state: 'running' }],
    })
    const cancelled = await node.jobs.cancel([running, scheduled])
    expect(cancelled).toMatchObject({ ids: [running], skipped: [{ id: scheduled, state: 'discarded' }] })
    gate.resolve()
    await until(async () => (await node.jobs.get(running))?.state === 'completed', { label: 'it completed' })
    for (const change of [node.jobs.cancel(running), node.jobs.discard(running), node.jobs.retry(running)])
      expect(await change).toMatchObject({ ids: [], skipped: [{ id: running, state: 'completed' }] })
    expect(await node.jobs.reschedule(running, { delay: 0 })).toMatchObject({
      skipped: [{ id: running, state: 'completed' }],
    })
    expect(await node.jobs.cancel([])).toMatchObject({ ids: [], matching: 0, skipped: [] })
  })

  it('and conditions beside them reaches only those that meet them', async () => {
    const { node, gate, running, scheduled } = await oneOfEach('beside')
    await using _node = node
    const ids = [running, scheduled]
    expect(await node.jobs.cancel({ ids, state: 'scheduled' })).toMatchObject({
      ids: [scheduled],
      skipped: [{ id: running, state: 'running' }],
    })
    expect(await node.jobs.cancel({ ids, name: 'no.such' })).toMatchObject({ ids: [], skipped: [{}, {}] })
    expect((await node.jobs.get(running))?.cancelRequested).toBe(false)
    gate.resolve()
  })

  it(
    'reaches the others when one is held by its own transaction, and says which is busy',
    { timeout: 20_000 },
    async () => {
      const { node, gate, running, scheduled } = await oneOfEach('held')
      await using _node = node
      const holder = await database.pool().connect()
      await holder.query('begin')
      await holder.query('select from forge.job where id = $1 for update', [running])
      const changed = await node.jobs.cancel([running, scheduled])
      expect(changed).toMatchObject({ ids: [scheduled], refused: [{ id: running, code: 'FORGE_JOB_BUSY' }] })
      expect(changed.refused[0]?.message).toContain('A transaction of its own holds the job')
      await holder.query('rollback')
      holder.release()
      gate.resolve()
    },
  )
})

describe('a change by filter', () => {
  it('counts first when asked to, and changes nothing', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('counted.first', { queue: 'counted.first', run: () => null })
    await using node = await attach({ queues: { 'counted.first': false } })
    await job.enqueueMany(Array.from({ length: 12 }, () => ({})))
    const filter: JobFilter = { queue: 'counted.first' }
    const dry = { dryRun: true }
    const nothing = { ids: [], skipped: [], refused: [] }
    expect(await node.jobs.cancel(filter, dry)).toEqual({ ...nothing, matching: 12, more: false })
    expect(await node.jobs.discard({ ...filter, limit: 5 }, dry)).toEqual({
      ...nothing,
      matching: 5,
      more: true,
    })
    expect(await node.jobs.reschedule(filter, { delay: '1h', ...dry })).toMatchObject({ matching: 12 })
    expect(await node.jobs.retry(filter, dry)).toEqual({ ...nothing, matching: 0, more: false })
    expect(await node.jobs.list({ queue: 'counted.first', state: 'available' })).toHaveLength(12)
    const [one, two] = await node.jobs.list({ ...filter, limit: 2 })
    expect(await node.jobs.cancel([one?.id ?? '', nobody], dry)).toEqual({
      ...nothing,
      matching: 1,
      more: false,
      skipped: [{ id: nobody, state: null }],
    })
    expect((await node.jobs.cancel({ ids: [two?.id ?? ''] })).ids).toEqual([two?.id])
    expect(await node.jobs.discard(filter, 'all of them')).toMatchObject({ matching: 11, more: false })
    expect(await node.jobs.retry(filter, dry)).toMatchObject({ ids: [], matching: 12 })
    expect(await node.jobs.retry({ ...filter, state: 'running' })).toMatchObject({ ids: [], matching: 0 })
  })

  it(
    'tries those again that somebody has locked, and says which stay busy',
    { timeout: 20_000 },
    async () => {
      const { forge, attach } = setup(database)
      const job = forge.job('locked', { run: () => null })
      await using node = await attach({ roles: ['gateway'] })
      const [held, ...others] = (await job.enqueueMany([{}, {}, {}])).map(({ id }) => id) as [
        string,
        ...string[],
      ]
      const holder = await database.pool().connect()
      await holder.query('begin')
      await holder.query('select from forge.job where id = $1 for update', [held])
      const nothing = { more: false, skipped: [] }
      const changed = await node.jobs.cancel({ name: 'locked' })
      expect(changed).toMatchObject({ ...nothing, ids: others, matching: 3, refused: [{ id: held }] })
      expect(changed.refused[0]?.code).toBe('FORGE_JOB_BUSY')
      const again = (await job.enqueue({})).id
      const changing = node.jobs.cancel({ name: 'locked' })
      await until(async () => (await node.jobs.get(again))?.state === 'cancelled', {
        label: 'one is reached',
      })
      await holder.query('rollback')
      holder.release()
      expect(await changing).toEqual({ ...nothing, ids: [held, again], matching: 2, refused: [] })
    },
  )

  it('finds jobs by tag and by parent, waiting and finished', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('tagged', { queue: 'tagged', run: () => null })
    await using node = await attach({ queues: { tagged: false } })
    const [a, b, c] = (await job.enqueueMany([{}, {}, {}])).map(({ id }) => id) as [string, string, string]
    await database.query(`update forge.job set tags = '{red,blue}', parent = $2 where id = $1`, [a, c])
    await database.query(`update forge.job set tags = '{red}' where id = $1`, [b])
    await node.jobs.cancel(a)
    const ids = async (filter: JobFilter): Promise<string[]> =>
      (await node.jobs.list(filter)).map(({ id }) => id)
    expect(await ids({ tag: 'red' })).toEqual([b, a])
    expect(await ids({ tag: 'blue' })).toEqual([a])
    expect(await ids({ tag: 'red', state: 'cancelled' })).toEqual([a])
    expect(await ids({ tag: `red'; drop table forge.job; --` })).toEqual([])
    expect(await ids({ parent: c })).toEqual([a])
    expect(await node.jobs.get(a)).toMatchObject({ tags: ['red', 'blue'], parent: c })
    expect(await node.jobs.get(c)).toMatchObject({ tags: [], parent: null })
    expect((await node.jobs.cancel({ tag: 'red' })).ids).toEqual([b])
    expect((await node.jobs.retry({ parent: c })).ids).toEqual([a])
    expect(await stateOf(a)).toMatchObject({ state: 2, tags: ['red', 'blue'], parent: c })
  })

  it.each(['retry', 'cancel', 'discard', 'reschedule'] as const)(
    '%s wants all: true for everything',
    async (verb) => {
      const { attach } = setup(database)
      await using node = await attach({ roles: ['gateway'] })
      const ask = (filter: JobFilter) =>
        node.jobs[verb](filter, { dryRun: true, ...(verb === 'reschedule' ? { delay: 1 } : {}) })
      await expect(ask({})).rejects.toMatchObject({ code: 'FORGE_FILTER_EMPTY' })
      await expect(ask({ limit: 3 })).rejects.toMatchObject({ code: 'FORGE_FILTER_EMPTY' })
      await expect(ask({ all: true })).resolves.toMatchObject({ ids: [] })
      await expect(ask({ tag: 'x', limit: 10_001 })).rejects.toMatchObject({ code: 'FORGE_FILTER_INVALID' })
      await expect(ask({ parent: 'x' })).rejects.toThrow('parent must be the id of a job')
      await expect(ask({ tag: 'a\0b' })).rejects.toThrow('tag must be text')
    },
  )
})

describe('discard', () => {
  it('ends a waiting job as a dead letter with its reason, and retry brings it back', async () => {
    const { node, gate, scheduled, later } = await oneOfEach('dead')
    await using _node = node
    const handle = await later.enqueue({}, { delay: '1h' })
    const result = expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_JOB_DISCARDED' })
    await node.jobs.discard(handle.id, { reason: 'superseded\0' })
    await result
    expect(await node.jobs.get(handle.id)).toMatchObject({ state: 'discarded', reason: 'superseded\uFFFD' })
    await node.jobs.discard(scheduled)
    expect((await node.jobs.get(scheduled))?.reason).toBe('discarded')
    expect((await node.jobs.retry(handle.id)).ids).toEqual([handle.id])
    expect(await handle.result()).toBe('ran')
    gate.resolve()
  })
})

describe('how long an ended job is kept', () => {
  it('is what its definition says, where this process knows it, else what the node says', async () => {
    const { forge, attach } = setup(database)
    const own = forge.job('keep.own', {
      queue: 'keep',
      keep: { completed: '20d', discarded: '3d' },
      run: () => null,
    })
    const none = forge.job('keep.none', { queue: 'keep', keep: { completed: 0 }, run: () => null })
    const plain = forge.job('keep.plain', { queue: 'keep', run: () => null })
    await using node = await attach({
      queues: { keep: false },
      retention: { completed: '2d', discarded: '5d' },
    })
    const [a, b, c, d] = [
      await own.enqueue({}),
      await own.enqueue({}),
      await plain.enqueue({}),
      await none.enqueue({}),
    ]
    await node.jobs.cancel([a.id, c.id, d.id])
    await node.jobs.discard(b.id)
    expect(await keptDays([a.id, b.id, c.id])).toEqual([21, 4, 3])
    expect(await node.jobs.get(d.id)).toBeNull()
  })

  it('needs no partition beforehand: a missing one is made', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('keep.far', { queue: 'keep', keep: { completed: '40d' }, run: () => null })
    await using node = await attach({ queues: { keep: false } })
    const { id } = await job.enqueue({})
    const [row] = await database.query<{ part: string }>(
      `select 'job_history_' || to_char((now() at time zone 'UTC')::date + 41, 'YYYYMMDD') as part`,
    )
    await database.query(`drop table forge.${row?.part}`)
    expect((await node.jobs.cancel(id)).ids).toEqual([id])
    expect(await keptDays([id])).toEqual([41])
  })

  async function keptDays(ids: readonly string[]): Promise<number[]> {
    const rows = await database.query<{ days: number }>(
      `select expires_on - (finished_at at time zone 'UTC')::date as days from forge.job_history
       where id = any($1) order by array_position($1::uuid[], id)`,
      [ids],
    )
    return rows.map(({ days }) => days)
  }
})

describe('reschedule', () => {
  it('moves a waiting job in both directions, by the clock of the database', async () => {
    const { node, gate, scheduled } = await oneOfEach('moved')
    await using _node = node
    const far = new Date(Date.now() + 86_400_000)
    expect(await node.jobs.reschedule(scheduled, { runAt: far })).toMatchObject({
      ids: [scheduled],
      matching: 1,
    })
    expect(await stateOf(scheduled)).toMatchObject({ state: 0, run_ms: far.getTime(), urgency: 300 })
    await node.jobs.reschedule(scheduled, { priority: 'critical' })
    expect(await stateOf(scheduled)).toMatchObject({
      state: 0,
      run_ms: far.getTime(),
      urgency: 0,
      priority: 100,
    })
    await node.jobs.reschedule(scheduled, { delay: '20ms', priority: 75 })
    await until(async () => (await node.jobs.get(scheduled))?.state === 'completed', { label: 'it ran' })
    expect((await node.jobs.get(scheduled))?.priority).toBe(75)
    gate.resolve()
  })

  it('puts off what was about to run, and a retryable job stays one', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('put.off', { queue: 'off', run: () => null })
    const failing = forge.job('put.off.failing', {
      retry: { base: '1h', max: '1h' },
      run(_input: unknown, context) {
        if (context.attempt === 1) throw new Error('once')
        return 'twice'
      },
    })
    await using node = await attach({ queues: { off: false } })
    const { id } = await job.enqueue({})
    await node.jobs.reschedule(id, { delay: '1h' })
    expect(await stateOf(id)).toMatchObject({ state: 0, late: true })
    await node.jobs.reschedule(id, { delay: 0 })
    expect(await stateOf(id)).toMatchObject({ state: 2, late: false })
    const failed = await failing.enqueue({})
    await until(async () => (await node.jobs.get(failed.id))?.state === 'retryable', {
      label: 'it failed once',
    })
    await node.jobs.reschedule(failed.id, { delay: '2h' })
    expect((await node.jobs.get(failed.id))?.state).toBe('retryable')
    await node.jobs.reschedule(failed.id, { runAt: new Date(0) })
    expect(await failed.result()).toBe('twice')
  })

  it.each([
    [{}, 'FORGE_OPTION_INVALID', 'needs delay, runAt or priority'],
    [{ delay: 1, runAt: new Date() }, 'FORGE_OPTION_INVALID', 'exclude each other'],
    [{ delay: 'soon' }, 'FORGE_DURATION_INVALID', 'soon'],
    [{ delay: -1 }, 'FORGE_DURATION_INVALID', '-1'],
    [{ runAt: new Date(Number.NaN) }, 'FORGE_OPTION_INVALID', 'must be a valid Date'],
    [{ runAt: new Date('9999-01-01') }, 'FORGE_OPTION_INVALID', 'must be a valid Date'],
    [{ runAt: '2030-01-01' }, 'FORGE_OPTION_INVALID', 'must be a valid Date'],
    [{ priority: 101 }, 'FORGE_OPTION_INVALID', 'whole number from 0 to 100'],
    [{ dellay: 1 }, 'FORGE_OPTION_UNKNOWN', "Did you mean 'delay'?"],
    [{ delay: 1, dryRun: 'yes' }, 'FORGE_OPTION_INVALID', 'must be true or false'],
    [null, 'FORGE_OPTION_INVALID', 'must be an object'],
  ])('refuses %j', async (options, code, says) => {
    const { attach } = setup(database)
    await using node = await attach({ roles: ['gateway'] })
    await expect(node.jobs.reschedule(nobody, options as never)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(says) as string,
    })
  })
})

describe('a job with gates', () => {
  const gates = ['c/gated=a', 'q/gated']

  /** The only place of each is held by this job. */
  async function fillGates(holder: string, node: ForgeNode): Promise<void> {
    await database.query(
      `insert into forge.job_limit (gate_class, limit_n, keyed) values ('c/gated', 1, true), ('q/gated', 1, false)
       on conflict do nothing`,
    )
    await markClaimed(database, [holder], { node: node.id, set: { gates, gate: null } })
  }

  it('comes back at its first gate, from history and from a retry; tags and parent come along', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('gated', { queue: 'gated', run: () => null })
    await using node = await attach({ queues: { gated: false } })
    const [a, b, holder] = (await job.enqueueMany([{}, {}, {}])).map(({ id }) => id) as [
      string,
      string,
      string,
    ]
    await fillGates(holder, node)
    const set = `update forge.job set gates = $2, tags = '{t}', parent = $1`
    await database.query(`${set}, state = 1, stage = 1, gate = 'q/gated' where id = $1`, [a, gates])
    await database.query(`${set}, state = 4, stage = 0 where id = $1`, [b, gates])
    await node.jobs.cancel(a)
    expect((await node.jobs.retry([a, b])).ids).toEqual([a, b])
    for (const id of [a, b])
      expect(await stateOf(id)).toMatchObject({ state: 1, gate: gates[0], gates, tags: ['t'], parent: id })
  })

  it('gives its place up when it is put off, and keeps it when it is not', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('gated', { queue: 'gated', run: () => null })
    await using node = await attach({ queues: { gated: false } })
    const { id } = await job.enqueue({})
    await fillGates((await job.enqueue({})).id, node)
    await database.query(
      `update forge.job set gates = $2, state = 1, stage = 1, gate = 'q/gated' where id = $1`,
      [id, gates],
    )
    await node.jobs.reschedule(id, { priority: 'high' })
    expect(await stateOf(id)).toMatchObject({ state: 1, gate: 'q/gated', priority: 75 })
    await node.jobs.reschedule(id, { delay: '1h' })
    expect(await stateOf(id)).toMatchObject({ state: 0, gate: null, gates })
    await node.jobs.reschedule(id, { delay: 0 })
    expect(await stateOf(id)).toMatchObject({ state: 1, gate: gates[0] })
    expect((await node.jobs.retry(id)).skipped).toEqual([{ id, state: 'blocked' }])
  })
})

describe('a retry of inputs that the definition would not accept any more', () => {
  it('is refused one by one, and the rest proceeds', async () => {
    const old = setup(database)
    const before = old.forge.job('strict', { queue: 'strict', run: (n: unknown) => n })
    const first = await old.attach({ queues: { strict: false } })
    const handles = await before.enqueueMany(['1', 2, '3', 4])
    await first.jobs.cancel(handles.map(({ id }) => id))
    await first.stop()

    const now = setup(database)
    now.forge.job('strict', { queue: 'strict', input: z.number(), run: (n) => n })
    await using node = await now.attach()
    const [a, b, c, d] = handles.map(({ id }) => id) as [string, string, string, string]
    const changed = await node.jobs.retry({ name: 'strict' })
    expect(changed).toMatchObject({ ids: [b, d], matching: 4, more: false, skipped: [] })
    expect(changed.refused.map(({ id, code }) => [id, code])).toEqual([
      [a, 'FORGE_INPUT_INVALID'],
      [c, 'FORGE_INPUT_INVALID'],
    ])
    expect(changed.refused[0]?.message).toContain(`The stored input of 'strict'`)
    expect((await node.jobs.get(a))?.state).toBe('cancelled')
    await until(async () => (await node.jobs.get(d))?.state === 'completed', { label: 'the rest ran' })
    expect(await node.jobs.retry(a)).toMatchObject({ ids: [], skipped: [], refused: [{ id: a }] })
  })

  it('is let through where this process does not know the definition, and where the input was never given', async () => {
    const old = setup(database)
    const optional = old.forge.job('never.given', { queue: 'foreign', run: () => null })
    const foreign = old.forge.job('foreign', { queue: 'foreign', run: () => null })
    const first = await old.attach({ queues: { foreign: false } })
    const ids = [(await optional.enqueue()).id, (await foreign.enqueue('x')).id]
    await first.jobs.cancel(ids)
    await first.stop()

    const now = setup(database)
    now.forge.job('never.given', { queue: 'foreign', input: z.string().optional(), run: () => null })
    await using node = await now.attach({ queues: { foreign: false } })
    expect(await node.jobs.retry(ids)).toMatchObject({ ids, refused: [] })
  })
})

it.each([
  [7, 'FORGE_OPTION_INVALID'],
  [{ reason: 7 }, 'FORGE_OPTION_INVALID'],
  [{ raeson: 'x' }, 'FORGE_OPTION_UNKNOWN'],
  [{ dryRun: 1 }, 'FORGE_OPTION_INVALID'],
])('cancel and discard refuse the options %j', async (options, code) => {
  const { attach } = setup(database)
  await using node = await attach({ roles: ['gateway'] })
  for (const verb of ['cancel', 'discard'] as const)
    await expect(node.jobs[verb](nobody, options as never)).rejects.toMatchObject({ code })
  await expect(node.jobs.retry(nobody, { dry: true } as never)).rejects.toMatchObject({
    code: 'FORGE_OPTION_UNKNOWN',
  })
})
