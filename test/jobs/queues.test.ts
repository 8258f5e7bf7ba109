import { randomUUID } from 'node:crypto'
import { afterAll, describe, expect, it } from 'vitest'
import type { AttachOptions, ForgeNode } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { expectRefusal } from '../forge/refusal.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const nodes: ForgeNode[] = []
afterAll(async () => {
  for (const node of nodes) await node.stop({ timeout: 0 })
})

interface Count {
  now: number
  all: number
}

/** Two nodes that run the jobs of one queue until the test lets them end. */
async function twoNodes(...options: AttachOptions[]) {
  const queue = `q.${randomUUID()}`
  const open = deferred<void>()
  const counts: [Count, Count] = [
    { now: 0, all: 0 },
    { now: 0, all: 0 },
  ]
  const bundles = counts.map((count) => {
    const bundle = setup(database)
    const job = bundle.forge.job(queue, {
      queue,
      async run() {
        count.now++
        count.all++
        await open.promise
        count.now--
      },
    })
    return { ...bundle, job }
  })
  const [one, two] = bundles as [(typeof bundles)[number], (typeof bundles)[number]]
  const [a, b] = [await one.attach(options[0]), await two.attach(options[1])]
  nodes.push(a, b)
  const info = async (node = a) => (await node.queues.list()).find(({ name }) => name === queue)
  const running = async (first: number, second: number) => {
    const shown = () => counts.map(({ now }) => now)
    await until(() => counts[0].now === first && counts[1].now === second, {
      label: `${first} and ${second} run`,
    }).catch((error: unknown) => {
      throw new Error(`${String(error)} Running: ${shown().join(', ')}.`, { cause: error })
    })
  }
  return { queue, a, b, job: one.job, other: two.job, open, counts, info, running }
}

const jobs = (n: number) => Array.from({ length: n }, () => ({}))

describe('a paused queue', () => {
  it('starts nothing on the node that paused it, from the answer on, and soon on no other; resume lets it go on', async () => {
    const { queue, a, b, job, counts, open, info, running } = await twoNodes(
      { concurrency: 2 },
      { concurrency: 2 },
    )
    await job.enqueueMany(jobs(4))
    await running(2, 2)
    await b.queues.pause(queue, { by: 'anna', reason: 'the mail server is down' })
    expect(await info(a)).toMatchObject({
      paused: { at: expect.any(Date), by: 'anna', reason: 'the mail server is down' },
    })
    await job.enqueueMany(jobs(6))
    open.resolve()
    await until(() => counts[0].now + counts[1].now === 0, { label: 'what ran has ended' })
    expect(counts[0].all + counts[1].all).toBe(4)
    await until(async () => (await info(b))?.running === 0, { label: 'the ends are written' })
    expect(await info(b)).toMatchObject({ available: 6 })
    await a.queues.resume(queue)
    await until(() => counts[0].all + counts[1].all === 10, { label: 'all have run' })
    expect(await info(b)).toMatchObject({ paused: null })
  })

  it('stays paused for nodes that come later, and keeps the moment of the first pause', async () => {
    const { forge, attach } = setup(database)
    const queue = `q.${randomUUID()}`
    let ran = 0
    const job = forge.job(queue, { queue, run: () => void ran++ })
    const before = await setup(database).attach()
    await before.queues.pause(queue)
    const at = (await before.queues.list()).find(({ name }) => name === queue)?.paused?.at
    await before.queues.pause(queue, { by: 'ben' })
    await before.stop()
    await using node = await attach()
    const handle = await job.enqueue({})
    expect((await node.queues.list()).find(({ name }) => name === queue)).toMatchObject({
      paused: { at, by: 'ben', reason: null },
      available: 1,
    })
    expect(ran).toBe(0)
    await node.queues.resume(queue)
    await handle.result()
  })

  it('goes on at once when it is resumed from another node, not with the next look', async () => {
    const { queue, a, job, open } = await twoNodes({ roles: ['gateway'] })
    open.resolve()
    const since = performance.now()
    // Without the hint each round would wait for a poll of 5 s.
    for (let round = 0; round < 6; round++) {
      await a.queues.pause(queue)
      const handle = await job.enqueue({})
      await a.queues.resume(queue)
      await handle.result()
    }
    expect(performance.now() - since).toBeLessThan(10_000)
  }, 60_000)

  it('is no business of other queues', async () => {
    const { queue, a } = await twoNodes()
    const { forge, attach } = setup(database)
    const job = forge.job('elsewhere', { run: () => 'ran' })
    await using _node = await attach()
    await a.queues.pause(queue)
    expect(await (await job.enqueue({})).result()).toBe('ran')
    await a.queues.resume('never.paused')
  })
})

describe('the scale of a queue', () => {
  it('counts on every node, over the options, until it is taken back', async () => {
    const { queue, b, job, running, info, open } = await twoNodes({ concurrency: 1 }, { concurrency: 1 })
    await job.enqueueMany(jobs(20))
    await running(1, 1)
    await b.queues.scale(queue, { limit: 3 })
    await running(3, 3)
    expect(await info(b)).toMatchObject({ concurrency: 3, running: 6 })
    await b.queues.scale(queue, { limit: null })
    await until(async () => (await info())?.concurrency === 1, { label: 'the option counts again' })
    open.resolve()
  })

  it('of one node is no business of the other, and the last word counts', async () => {
    const { queue, a, b, job, running, info, open } = await twoNodes({ concurrency: 1 }, { concurrency: 1 })
    await job.enqueueMany(jobs(20))
    await running(1, 1)
    await a.queues.scale(queue, { limit: 4, node: b.id })
    await running(1, 4)
    expect([(await info(a))?.concurrency, (await info(b))?.concurrency]).toEqual([1, 4])
    await a.queues.scale(queue, { limit: 5 })
    await running(5, 5)
    await a.queues.scale(queue, { limit: 2, node: b.id })
    await a.queues.scale(queue, { limit: null, node: b.id })
    expect([(await info(a))?.concurrency, (await info(b))?.concurrency]).toEqual([5, 5])
    await a.queues.scale(queue, { limit: 2, node: b.id })
    await a.queues.scale(queue, { limit: null })
    expect([(await info(a))?.concurrency, (await info(b))?.concurrency]).toEqual([1, 1])
    open.resolve()
  })

  it('is heard of at once by other nodes, not with their next look', async () => {
    const { queue, a, job, running, open } = await twoNodes({ roles: ['gateway'] }, { concurrency: 1 })
    await job.enqueueMany(jobs(7))
    await running(0, 1)
    const since = performance.now()
    for (let limit = 2; limit <= 7; limit++) {
      await a.queues.scale(queue, { limit })
      await running(0, limit)
    }
    expect(performance.now() - since).toBeLessThan(10_000)
    open.resolve()
  }, 60_000)

  it('forgets nodes that are gone', async () => {
    const { queue, a } = await twoNodes()
    await database.query('insert into forge.job_queue_scale values ($1, $2, 3)', [queue, randomUUID()])
    await a.queues.scale(queue, { limit: 3, node: a.id })
    const rows = await database.query('select node from forge.job_queue_scale where queue = $1', [queue])
    expect(rows).toEqual([{ node: a.id }])
  })
})

describe('the list of queues', () => {
  it('has what the options name and what has jobs, with numbers, weight and limit', async () => {
    const queue = `q.${randomUUID()}`
    const { forge, attach } = setup(database)
    const end = deferred<void>()
    const job = forge.job(queue, { queue, concurrency: { limit: 1 }, run: () => end.promise })
    await using node = await attach({
      queues: { [queue]: { weight: 8, limit: 9, concurrency: 3 }, [`${queue}.b`]: false },
    })
    await job.enqueueMany(jobs(3))
    await job.enqueueMany(jobs(2), { delay: '1h' })
    const find = async () => (await node.queues.list()).filter(({ name }) => name.startsWith(queue))
    await until(async () => (await find())[0]?.running === 1, { label: 'one runs' })
    expect(await find()).toEqual([
      {
        name: queue,
        paused: null,
        available: 0,
        waiting: 2,
        blocked: 2,
        running: 1,
        concurrency: 3,
        weight: 8,
        limit: 9,
      },
      {
        name: `${queue}.b`,
        paused: null,
        available: 0,
        waiting: 0,
        blocked: 0,
        running: 0,
        concurrency: 0,
        weight: 1,
        limit: null,
      },
    ])
    end.resolve()
  })
})

describe('bad input', () => {
  const hostile = `x'; drop table job; --`
  it.each([
    ['a hostile name', (q: ForgeNode['queues']) => q.pause(hostile), 'FORGE_JOB_NAME_INVALID', /queue name/],
    ['no name', (q) => q.resume(undefined as never), 'FORGE_JOB_NAME_INVALID', /of type undefined/],
    ['a star', (q) => q.pause('*'), 'FORGE_JOB_NAME_INVALID', /queue name/],
    [
      'a name too long',
      (q) => q.scale('x'.repeat(201), { limit: 1 }),
      'FORGE_JOB_NAME_INVALID',
      /queue name/,
    ],
    [
      'an unknown option',
      (q) => q.pause('mail', { bye: 'me' } as never),
      'FORGE_OPTION_UNKNOWN',
      /Did you mean 'by'\?/,
    ],
    [
      'a reason that is no text',
      (q) => q.pause('mail', { reason: 5 } as never),
      'FORGE_OPTION_INVALID',
      /reason .* must be text/,
    ],
    [
      'options that are none',
      (q) => q.pause('mail', 'anna' as never),
      'FORGE_OPTION_INVALID',
      /must be an object/,
    ],
    ...[{}, undefined, { limit: 0 }, { limit: -5 }, { limit: 1e9 }].map(
      (options) =>
        [
          `a scale of ${JSON.stringify(options)}`,
          (q: ForgeNode['queues']) => q.scale('mail', options as never),
          'FORGE_OPTION_INVALID',
          /whole number from 1 to 1000/,
        ] as const,
    ),
    [
      'an unknown key',
      (q) => q.scale('mail', { limits: 1 } as never),
      'FORGE_OPTION_UNKNOWN',
      /Did you mean 'limit'\?/,
    ],
    [
      'a node that nobody knows',
      (q) => q.scale('mail', { limit: 1, node: randomUUID() }),
      'FORGE_OPTION_INVALID',
      /names no node/,
    ],
    [
      'a node that is no id',
      (q) => q.scale('mail', { limit: 1, node: 'a' }),
      'FORGE_OPTION_INVALID',
      /must be the id of a node/,
    ],
  ] as readonly (readonly [string, (q: ForgeNode['queues']) => Promise<void>, string, RegExp])[])(
    '%s is refused and changes nothing',
    async (_, call, code, message) => {
      await using node = await setup(database).attach()
      await expectRefusal(database, () => call(node.queues), ['', null, code, message])
      expect(
        await database.query(`select from forge.job_queue where queue in ('mail', $1)`, [hostile]),
      ).toEqual([])
    },
  )

  it.each([
    [{ weight: 0 }, 'FORGE_OPTION_INVALID', /mail.weight must be a whole number from 1 to 100/],
    [{ weight: 101 }, 'FORGE_OPTION_INVALID', /from 1 to 100/],
    [{ weight: 1.5 }, 'FORGE_OPTION_INVALID', /from 1 to 100/],
    [{ limit: 0 }, 'FORGE_OPTION_INVALID', /mail.limit must be a whole number from 1 to 10000/],
    [{ limit: -1 }, 'FORGE_OPTION_INVALID', /from 1 to 10000/],
    [{ wait: 1 }, 'FORGE_OPTION_UNKNOWN', /'queues.mail.wait'|wait/],
  ] as const)('queue options %j are refused', async (option, code, message) => {
    const call = () => setup(database).attach({ queues: { mail: option } as never })
    await expectRefusal(database, call, ['', option, code, message])
  })

  it('a limit for all queues at once is refused: it would hold in the whole cluster for each', async () => {
    const call = () => setup(database).attach({ queues: { '*': { limit: 5 } } })
    await expectRefusal(database, call, ['', null, 'FORGE_OPTION_INVALID', /must name its queue/])
  })
})
