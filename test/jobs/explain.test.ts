import { afterEach, describe, expect, it } from 'vitest'
import type { Explanation, ForgeNode } from '../../src/index.js'
import { explain } from '../../src/jobs/explain.js'
import type { StandingRow } from '../../src/jobs/queries/explain.js'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const nobody = '00000000-0000-7000-8000-000000000000'

/** Jobs of one kind, and a node that runs none; workers are made by the test. */
async function idle(name: string, settings: { capability?: string; queue?: string } = {}) {
  const { forge, attach } = setup(database)
  const job = forge.job(name, { queue: settings.queue ?? name, ...settings, run: () => null })
  const node = await attach({ roles: ['gateway'] })
  return { node, job, lane: () => laneOf(name) }
}

async function laneOf(name: string): Promise<number> {
  const [row] = await database.query<{ id: number }>('select id from forge.job_lane where name = $1', [name])
  return row?.id as number
}

/** A worker that lives, and says that it serves these lanes; null: it has not said yet. Answers with its id. */
async function worker(
  lanes: readonly number[] | null,
  capabilities: readonly string[] = [],
): Promise<string> {
  const [row] = await database.query<{ id: string }>(
    `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
     values (gen_random_uuid(), gen_random_uuid(), 'active', 'elsewhere', 1, '0', '{worker}', $1, now() + interval '1 hour')
     returning id`,
    [capabilities],
  )
  const id = row?.id as string
  if (lanes) await serves(id, lanes)
  return id
}

async function serves(node: string, lanes: readonly number[]): Promise<void> {
  await database.query(
    'insert into forge.job_worker values ($1, $2) on conflict (node) do update set lanes = excluded.lanes',
    [node, lanes],
  )
}

/** The explanation as soon as it is of this kind. */
async function reached(node: ForgeNode, id: string, because: Explanation['because']): Promise<Explanation> {
  await until(async () => (await node.jobs.explain(id)).because === because, { label: because })
  return node.jobs.explain(id)
}

afterEach(async () => {
  await database.query('delete from forge.job_worker')
  await database.query('delete from forge.job_queue')
  await database.query('delete from forge.node')
  await database.query('delete from forge.job')
})

describe('explain', () => {
  it('says that there is no such job', async () => {
    const { node } = await idle('nothing')
    await using _node = node
    expect(await node.jobs.explain(nobody)).toEqual({
      state: null,
      because: 'unknown',
      sentence: `There is no job ${nobody}: it never was, its transaction has not committed, or its retention has passed.`,
    })
    await expect(node.jobs.explain('x')).rejects.toMatchObject({ code: 'FORGE_FILTER_INVALID' })
  })

  it('follows a job from its time over a failure and its run to its end', async () => {
    const { forge, attach } = setup(database)
    const gate = deferred<void>()
    const job = forge.job('followed', {
      retry: { attempts: 3, base: '1h', max: '1h', jitter: 0 },
      async run(_input: unknown, context) {
        if (context.attempt === 1) throw new TypeError('of the\nmail\u0007 server.')
        await gate.promise
        throw new Error('cancelled')
      },
    })
    await using node = await attach()
    const { id } = await job.enqueue({}, { delay: '2h' })
    const scheduled = await node.jobs.explain(id)
    expect(scheduled).toMatchObject({ state: 'scheduled', because: 'scheduled', queue: 'default' })
    expect(scheduled.at).toEqual((await node.jobs.get(id))?.runAt)
    expect(scheduled.sentence).toBe(`It is scheduled and due at ${scheduled.at?.toISOString()}, in 2 h.`)

    await node.jobs.reschedule(id, { delay: 0 })
    const retrying = await reached(node, id, 'retrying')
    expect(retrying.sentence).toBe(
      `Attempt 1 of 3 failed (TypeError: of the mail server); the next is due at ${retrying.at?.toISOString()}, in 1 h.`,
    )

    await node.jobs.retry(id)
    const running = await reached(node, id, 'running')
    expect(running).toMatchObject({ state: 'running', node: node.id })
    expect(running.sentence).toMatch(
      new RegExp(
        `^It was claimed at \\S+, \\d+ m?s ago, by node ${node.id} \\(.+, process ${process.pid}\\) for attempt 2 of 3, and runs there or is about to\\.$`,
      ),
    )

    await node.jobs.cancel(id, 'a reason')
    const cancelling = await node.jobs.explain(id)
    expect(cancelling).toMatchObject({ state: 'running', because: 'cancelling' })
    expect(cancelling.sentence).toMatch(
      /its cancel was asked for at \S+ \(a reason\), and its handler has not ended yet\.$/,
    )
    gate.resolve()
    const finished = await reached(node, id, 'finished')
    expect(finished.sentence).toBe(`It is cancelled since ${finished.at?.toISOString()}: a reason.`)
  })

  it('says how a job ended by itself', async () => {
    const { forge, attach } = setup(database)
    const good = forge.job('ended.good', { run: () => null })
    const bad = forge.job('ended.bad', {
      retry: { attempts: 1 },
      run() {
        throw new Error('boom')
      },
    })
    await using node = await attach()
    const [a, b] = [await good.enqueue({}), await bad.enqueue({})]
    await Promise.allSettled([a.result(), b.result()])
    expect((await node.jobs.explain(a.id)).sentence).toMatch(
      /^It is completed since \S+Z in attempt 1 of 5\.$/,
    )
    expect((await node.jobs.explain(b.id)).sentence).toMatch(
      /^It is discarded since \S+Z in attempt 1 of 1: failed 1 of 1 attempts\.$/,
    )
  })

  it('says that the node of a running job is lost', async () => {
    const { node, job } = await idle('orphan')
    await using _node = node
    const { id } = await job.enqueue({})
    await database.query(
      `update forge.job set state = 3, token = gen_random_uuid(), node = $2, epoch = $2, claimed_at = now(), attempt = 1 where id = $1`,
      [id, nobody],
    )
    const { sentence } = await node.jobs.explain(id)
    expect(sentence).toContain(
      `by node ${nobody} for attempt 1 of 5; that node is lost, and the job is about to be taken back.`,
    )
  })

  it.each([
    ['c/gate.x=user/1=a', `the concurrency limit of 'gate.x' for the key 'user/1=a'`],
    ['r/gate.x=\u001b[31m', `the rate limit of 'gate.x' for the key '[31m'`],
    ['r/gate.x', `the rate limit of 'gate.x'`],
    ['q/gate', `the limit of queue 'gate' in the whole cluster`],
    ['c/a/b', `the concurrency limit of 'a/b'`],
    ['x/other', `the gate 'x/other'`],
  ])('names what it waits for at the gate %j, and how many come before it', async (gate, what) => {
    const { node, job } = await idle('gate.x', { queue: 'gate' })
    await using _node = node
    const [first, second] = (await job.enqueueMany([1, 2])).map(({ id }) => id) as [string, string]
    await database.query(`update forge.job set state = 1, stage = 1, gates = $1, gate = $2`, [[gate], gate])
    expect(await node.jobs.explain(first)).toEqual({
      state: 'blocked',
      because: 'gate',
      queue: 'gate',
      gate,
      ahead: 0,
      sentence: `It waits for ${what}; it is the first in line there.`,
    })
    expect(await node.jobs.explain(second)).toMatchObject({
      ahead: 1,
      sentence: `It waits for ${what}; 1 job is before it there.`,
    })
  })

  it('says by whom a queue is paused, and why', async () => {
    const { node, job } = await idle('paused')
    await using _node = node
    const { id } = await job.enqueue({})
    await database.query(
      `insert into forge.job_queue values ('paused', now(), 'ann', 'the mail server is down.')`,
    )
    const { sentence, because, at } = await node.jobs.explain(id)
    expect([because, sentence]).toEqual([
      'paused',
      `Its queue 'paused' is paused since ${at?.toISOString()} by ann: the mail server is down.`,
    ])
    await database.query(`update forge.job_queue set paused_by = null, paused_reason = null`)
    expect((await node.jobs.explain(id)).sentence).toBe(
      `Its queue 'paused' is paused since ${at?.toISOString()}.`,
    )
    const later = await job.enqueue({}, { delay: '1h' })
    expect((await node.jobs.explain(later.id)).sentence).toMatch(/in 1 h, and its queue is paused\.$/)
  })
})

it.each([
  [
    { limit_n: 3, per_ms: null, wait_ms: null },
    `the rate limit of 'a' (3 at once); it is the first in line there.`,
  ],
  [
    { limit_n: 1_000, per_ms: 60_000, wait_ms: 12_000 },
    `the rate limit of 'a' (1,000 per 1 min); it is the first in line there, and the next passes in 12 s.`,
  ],
])('explain of a gate gives the numbers of the limit where they are known: %j', (numbers, says) => {
  const job = { state: 1, gate: 'r/a', queue: 'q' } as StandingRow
  expect(explain({ job, gate: { ahead: 0, ...numbers } }).sentence).toBe(`It waits for ${says}`)
})

describe('explain of a job that nobody serves', () => {
  it('says that no worker is alive', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('no.worker', { run: () => null })
    await using node = await attach({ roles: ['gateway'] })
    const { id } = await job.enqueue({})
    expect(await node.jobs.explain(id)).toMatchObject({
      state: 'available',
      because: 'unserved',
      sentence: 'No node with the role worker is alive, or all of them are stopping.',
    })
  })

  it('says what is missing: the name, the queue, the version or the capability', async () => {
    const { node, job, lane } = await idle('lacking')
    await using _node = node
    const { id } = await job.enqueue({})
    const sentence = async (): Promise<string> => (await node.jobs.explain(id)).sentence
    const other = await worker(null)
    // As long as no worker has said what it serves, nothing is concluded from that.
    expect((await node.jobs.explain(id)).because).toBe('next')
    await serves(other, [])
    expect(await sentence()).toBe(
      `The one live worker does not serve 'lacking' in queue 'lacking': it is not defined there, or option queues leaves that queue out.`,
    )
    const [queue] = await database.query<{ id: number }>(
      `insert into forge.job_lane (queue, name) values ('elsewhere', 'lacking') returning id`,
    )
    await serves(other, [queue?.id as number])
    expect(await sentence()).toBe(
      `The one live worker does not serve its queue 'lacking'; 'lacking' is served in 'elsewhere' only.`,
    )
    const [newer] = await database.query<{ id: number }>(
      `insert into forge.job_lane (queue, name, version) values ('lacking', 'lacking', 2) returning id`,
    )
    await serves(other, [newer?.id as number])
    expect(await sentence()).toBe(`The one live worker does not serve version 1 of 'lacking', only 2.`)
    await serves(other, [await lane()])
    expect((await node.jobs.explain(id)).because).toBe('next')
  })

  it('says which capability nobody declares', async () => {
    const { node, job } = await idle('able', { capability: 'media' })
    await using _node = node
    const { id } = await job.enqueue({})
    for (const capabilities of [[], ['gpu']]) await worker([], capabilities)
    expect((await node.jobs.explain(id)).sentence).toBe(
      `None of the 2 live workers declares the capability 'media', which 'able' needs.`,
    )
    await worker([], ['media'])
    expect((await node.jobs.explain(id)).sentence).toMatch(
      /^None of the 3 live workers serves 'able' in queue/,
    )
  })

  it('does not count nodes that are gone or draining', async () => {
    const { node, job, lane } = await idle('gone')
    await using _node = node
    const { id } = await job.enqueue({})
    await worker([])
    await serves(nobody, [await lane()])
    expect((await node.jobs.explain(id)).because).toBe('unserved')
    await database.query(`update forge.node set state = 'draining'`)
    expect((await node.jobs.explain(id)).sentence).toMatch(/^No node with the role worker is alive/)
  })
})

describe('explain of a job that could run', () => {
  it('counts what is more urgent, up to a thousand, and what runs', async () => {
    const { node, job, lane } = await idle('line')
    await using _node = node
    const { id } = await job.enqueue({}, { priority: 'background' })
    await worker([await lane()])
    const sentence = async (): Promise<string> => (await node.jobs.explain(id)).sentence
    expect(await sentence()).toBe(
      `Nothing holds it back: it is the next of its queue and starts as soon as a node has a slot for it; 0 of its queue 'line' run now.`,
    )
    const fresh = await job.enqueue({}, { priority: 'critical' })
    expect(await sentence()).toBe(
      `1 job is more urgent, or as urgent and older; 0 of its queue 'line' run now.`,
    )
    expect((await node.jobs.explain(fresh.id)).because).toBe('next')
    await job.enqueueMany(Array.from({ length: 999 }, () => ({})))
    expect(await node.jobs.explain(id)).toMatchObject({ because: 'outranked', ahead: 1_000 })
    // A job that nobody serves is in nobody's way.
    await database.query(
      `insert into forge.job_lane (queue, name) values ('line', 'foreign');
       insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input)
       select gen_random_uuid(), max(id), 2, 2, 0, 1, now() - interval '1 day', '{}' from forge.job_lane`,
    )
    expect(await node.jobs.explain(id)).toMatchObject({ ahead: 1_000 })
    await job.enqueue({})
    expect(await sentence()).toBe(
      `More than 1,000 jobs are more urgent, or as urgent and older; 0 of its queue 'line' run now.`,
    )
  })

  it('says that a suspect waits for another suspect', async () => {
    const { node, job, lane } = await idle('suspect')
    await using _node = node
    const [a, b] = (await job.enqueueMany([1, 2])).map(({ id }) => id) as [string, string]
    const other = await worker([await lane()])
    await database.query('update forge.job set crashes = 2')
    expect((await node.jobs.explain(b)).because).toBe('outranked')
    // A suspect is claimed by itself, so it is in the way of other suspects only.
    const fresh = await job.enqueue({})
    expect(await node.jobs.explain(fresh.id)).toMatchObject({ because: 'next', ahead: 0 })
    await database.query(
      `update forge.job set state = 3, token = gen_random_uuid(), node = node.id, epoch = node.epoch, claimed_at = now()
       from forge.node where node.id = $2 and job.id = $1`,
      [a, other],
    )
    expect(await node.jobs.explain(b)).toMatchObject({
      because: 'suspect',
      sentence:
        'It lost its process 2 times, so it is a suspect: a process runs one of those at a time, and the one node that could run it is busy with another.',
    })
    await database.query('delete from forge.job where id = $1', [a])
    expect((await node.jobs.explain(b)).because).toBe('next')
  })
})

it('explain goes by what real workers say of themselves, and forgets those that are gone altogether', async () => {
  await serves(nobody, [1])
  const { forge, attach } = setup(database)
  const job = forge.job('said', { run: () => null })
  await using node = await attach({ queues: { left: false }, concurrency: 1 })
  await (await job.enqueue({})).result()
  const { id } = await job.enqueue({}, { queue: 'left' })
  const says = `The one live worker does not serve its queue 'left'; 'said' is served in 'default' only.`
  await until(async () => (await node.jobs.explain(id)).sentence === says, { label: 'it has said so' })
  const left = () => database.query<{ node: string }>('select node from forge.job_worker')
  await until(async () => (await left()).length === 1, { label: 'the stale row is removed' })
  expect(await left()).toEqual([{ node: node.id }])
})
