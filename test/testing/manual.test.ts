import { describe, expect, it } from 'vitest'
import { type createForge, type JobDefinition, RetryAfter } from '../../src/index.js'
import { testForge } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { bench, rejection } from './test-forge-kit.js'

const database = useDatabase()
type Add = JobDefinition<{ n: number }, number>

/** Jobs that note what ran, in order. */
async function setupJobs() {
  const ran: string[] = []
  const jobs = {} as { add: Add; other: Add; parent: Add; fails: Add; snoozes: Add; again: Add }
  const t = await bench(database, (forge) => {
    const note = (name: string, n: number): number => ran.push(`${name} ${n}`)
    jobs.add = forge.job('add', { run: (input: { n: number }) => note('add', input.n) })
    jobs.other = forge.job('other', { queue: 'side', run: (input: { n: number }) => note('other', input.n) })
    jobs.parent = forge.job('parent', {
      async run(input: { n: number }, job) {
        note('parent', input.n)
        await jobs.add.enqueue({ n: input.n + 1 })
        await job.enqueue(jobs.add, { n: input.n + 2 })
        return 0
      },
    })
    jobs.fails = forge.job('fails', {
      retry: { attempts: 3, base: '1h' },
      run(input: { n: number }, job) {
        note('fails', job.attempt)
        if (job.attempt <= input.n) throw new TypeError(`attempt ${job.attempt}`)
        return 0
      },
    })
    jobs.snoozes = forge.job('snoozes', {
      run: (input: { n: number }, job) => (note('snoozes', input.n) === 1 ? job.snooze('1d') : 0),
    })
    jobs.again = forge.job('again', {
      async run(input: { n: number }, job) {
        note('again', input.n)
        await job.again({ n: input.n + 1 })
        return 0
      },
    })
  })
  return { t, ran, ...jobs }
}

describe('manual mode', () => {
  it('runs nothing by itself, and everything that is due in drain(), what is enqueued meanwhile included', async () => {
    const { t, ran, add, parent } = await setupJobs()
    await using _ = t
    await add.enqueue({ n: 1 })
    await parent.enqueue({ n: 10 })
    expect(await t.node.jobs.counts()).toMatchObject({ available: 2 })
    expect(ran).toEqual([])
    const report = await t.drain()
    expect(report).toMatchObject({
      ran: 4,
      completed: 4,
      discarded: 0,
      retryable: 0,
      failures: [],
      more: false,
    })
    expect(ran).toEqual(['add 1', 'parent 10', 'add 11', 'add 12'])
    expect(await t.node.jobs.counts()).toMatchObject({ available: 0, completed: 4 })
    expect(await t.drain()).toMatchObject({ ran: 0 })
  })

  it('runs the most urgent first, one at a time', async () => {
    const { t, ran, add, other } = await setupJobs()
    await using _ = t
    await add.enqueue({ n: 1 }, { priority: 'low' })
    await other.enqueue({ n: 2 })
    await add.enqueue({ n: 3 }, { priority: 'critical' })
    await t.drain()
    expect(ran).toEqual(['add 3', 'other 2', 'add 1'])
  })

  it('drains one queue, one name, or so many', async () => {
    const { t, ran, add, other, parent } = await setupJobs()
    await using _ = t
    await add.enqueueMany([{ n: 1 }, { n: 2 }])
    await other.enqueue({ n: 3 })
    await parent.enqueue({ n: 4 })
    expect(await t.drain({ queue: 'side' })).toMatchObject({ ran: 1 })
    expect(await t.drain({ name: 'parent' })).toMatchObject({ ran: 1 })
    expect(await t.drain({ max: 1 })).toMatchObject({ ran: 1, more: true })
    expect(ran).toEqual(['other 3', 'parent 4', 'add 1'])
    expect(await t.drain({ max: 3 })).toMatchObject({ ran: 3, more: false })
  })

  it('leaves what is to run later, and skips the waiting when asked', async () => {
    const { t, ran, add } = await setupJobs()
    await using _ = t
    const at = (hours: number): Date => new Date(Date.now() + hours * 3_600_000)
    await add.enqueue({ n: 48 }, { delay: '2d' })
    await add.enqueue({ n: 1 }, { runAt: at(1) })
    await add.enqueue({ n: 3 }, { runAt: at(3) })
    await add.enqueue({ n: 0 })
    expect(await t.drain()).toMatchObject({ ran: 1 })
    expect(await t.drain({ until: at(2) })).toMatchObject({ ran: 1 })
    expect(await t.drain({ scheduled: true })).toMatchObject({ ran: 2 })
    expect(ran).toEqual(['add 0', 'add 1', 'add 3', 'add 48'])
  })

  it('reports a failed attempt with what was thrown; its retry waits, unless waiting is skipped', async () => {
    const { t, ran, fails } = await setupJobs()
    await using _ = t
    const { id } = await fails.enqueue({ n: 1 })
    const first = await t.drain()
    expect(first).toMatchObject({ ran: 1, retryable: 1, completed: 0 })
    expect(first.failures).toMatchObject([{ id, name: 'fails', attempt: 1, state: 'retryable' }])
    expect(first.failures[0]?.error).toBeInstanceOf(TypeError)
    expect(await t.drain()).toMatchObject({ ran: 0 })
    expect(await t.drain({ scheduled: true })).toMatchObject({ ran: 1, completed: 1, failures: [] })
    expect(ran).toEqual(['fails 1', 'fails 2'])
  })

  it('runs a job to its last attempt, and counts each run', async () => {
    const { t, fails, snoozes } = await setupJobs()
    await using _ = t
    await fails.enqueue({ n: 9 })
    const report = await t.drain({ scheduled: true })
    expect(report).toMatchObject({ ran: 3, retryable: 2, discarded: 1 })
    expect(report.failures.map(({ error }) => (error as Error).message)).toEqual([
      'attempt 1',
      'attempt 2',
      'attempt 3',
    ])
    await t.clear()
    await snoozes.enqueue({ n: 0 })
    expect(await t.drain({ name: 'snoozes' })).toMatchObject({ ran: 1 })
  })

  it('reports failures that no handler threw', async () => {
    const shapes = {} as { strict: JobDefinition<unknown, unknown>; slow: JobDefinition<unknown, unknown> }
    let accepts = true
    const even = {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: (value: unknown) => (accepts ? { value } : { issues: [{ message: 'must be even' }] }),
      },
    } as const
    await using t = await bench(database, (forge) => {
      shapes.strict = forge.job('strict', { input: even, run: () => null })
      shapes.slow = forge.job('slow', {
        timeout: '20ms',
        retry: { attempts: 1 },
        run: (_input: unknown, job) =>
          new Promise((_, reject) =>
            job.signal.addEventListener('abort', () => reject(new Error('aborted'))),
          ),
      })
    })
    await shapes.strict.enqueue(1)
    await shapes.slow.enqueue(1)
    accepts = false
    const { failures, ...counts } = await t.drain()
    expect(counts).toMatchObject({ ran: 2, discarded: 2 })
    expect(failures.map(({ name, error }) => [name, (error as { code: string }).code])).toEqual([
      ['strict', 'FORGE_INPUT_INVALID'],
      ['slow', 'FORGE_JOB_TIMEOUT'],
    ])
    expect((failures[0]?.error as Error).message).toContain('must be even')
  })

  it('passes the marker errors on, and tells cancelled and discarded jobs from failures', async () => {
    let ends: JobDefinition<string, unknown>
    await using t = await bench(database, (forge) => {
      ends = forge.job('ends', {
        run(how: string, job) {
          if (how === 'later') throw new RetryAfter('1h', 'busy')
          return how === 'cancel' ? job.cancel('no need') : how === 'discard' ? job.discard('hopeless') : null
        },
      })
      return ends
    })
    for (const how of ['later', 'cancel', 'discard']) await ends!.enqueue(how)
    const report = await t.drain()
    expect(report).toMatchObject({ ran: 3, retryable: 1, cancelled: 1, discarded: 1 })
    expect(report.failures).toHaveLength(1)
    expect(report.failures[0]?.error).toBeInstanceOf(RetryAfter)
  })

  it('stops an endless loop, unless it is told how far to go', async () => {
    const { t, ran, again } = await setupJobs()
    await using _ = t
    await again.enqueue({ n: 1 })
    expect(await t.drain({ max: 3 })).toMatchObject({ ran: 3, more: true })
    expect(ran).toEqual(['again 1', 'again 2', 'again 3'])
    const error = await rejection(t.drain())
    expect(error).toMatchObject({ code: 'FORGE_TEST_ENDLESS' })
    expect(error.message).toContain("'again'")
  })

  it('sees a job of a transaction once that has committed, and none that rolled back', async () => {
    const { t, ran, add } = await setupJobs()
    await using _ = t
    await t.node.transaction(async (tx) => {
      await add.enqueue({ n: 1 }, { tx })
      expect(await t.drain()).toMatchObject({ ran: 0 })
    })
    await rejection(
      t.node.transaction(async (tx) => {
        await add.enqueue({ n: 2 }, { tx })
        throw new Error('no')
      }),
    )
    expect(await t.drain()).toMatchObject({ ran: 1 })
    expect(ran).toEqual(['add 1'])
  })

  it('clears jobs and history between tests', async () => {
    const { t, add } = await setupJobs()
    await using _ = t
    await add.enqueue({ n: 1 })
    await t.drain()
    await add.enqueue({ n: 2 }, { delay: '1h' })
    await t.clear()
    expect(await t.node.jobs.list()).toEqual([])
    expect(Object.values(await t.node.jobs.counts()).filter((count) => count !== 0)).toEqual([[]])
    await add.enqueue({ n: 3 })
    expect(await t.drain({ scheduled: true })).toMatchObject({ ran: 1, completed: 1 })
  })

  it('can be attached again, and leaves the instance free for an ordinary attach', async () => {
    const { forge, pool, attach } = setup(database)
    const job = forge.job('reused', { run: () => 'ran' })
    await using first = await testForge(forge, pool, { schema: 'reused' })
    await job.enqueue()
    await first.stop()
    await using second = await testForge(forge, pool, { schema: 'reused' })
    expect(await second.drain()).toMatchObject({ ran: 1 })
    await second.stop()
    await using _node = await attach({ schema: 'reused' })
    expect(await (await job.enqueue()).result()).toBe('ran')
  })

  it('runs jobs that need a capability where it is declared', async () => {
    let job: JobDefinition<unknown, unknown>
    const define = (forge: ReturnType<typeof createForge>): void => {
      job = forge.job('video', { capability: 'media', run: () => null })
    }
    await using without = await bench(database, define)
    await job!.enqueue()
    expect(await without.drain()).toMatchObject({ ran: 0 })
    await using having = await bench(database, define, { capabilities: ['media'] })
    await job!.enqueue()
    expect(await having.drain()).toMatchObject({ ran: 1 })
  })
})

describe('what is refused', () => {
  it.each<[string, unknown, string]>([
    ['an unknown option', { mod: 'inline' }, "'mod': Did you mean 'mode'?"],
    ['a mode that is none', { mode: 'live' }, "'manual' or 'inline'"],
    ['options that are none', 'inline', 'options of testForge'],
    ['a schema that is none', { schema: 'No Schema' }, 'schema name'],
  ])('%s', async (_, options, said) => {
    const { forge, pool } = setup(database)
    expect((await rejection(testForge(forge, pool, options as never))).message).toContain(said)
  })

  it.each([undefined, null, {}, 'forge'])('%s in place of a forge', async (thing) => {
    const { pool } = setup(database)
    const error = await rejection(testForge(thing as never, pool))
    expect(error).toMatchObject({ code: 'FORGE_OPTION_INVALID' })
    expect(error.message).toContain('testForge')
  })

  it('a pool that is none, and an instance that is attached', async () => {
    const { forge, pool } = setup(database)
    expect(await rejection(testForge(forge, {} as never))).toMatchObject({ code: 'FORGE_POOL_INVALID' })
    await using _t = await testForge(forge, pool, { schema: 'refusals' })
    expect(await rejection(testForge(forge, pool))).toMatchObject({ code: 'FORGE_ALREADY_ATTACHED' })
  })

  it.each<[string, unknown, string]>([
    ['an unknown option', { quue: 'mail' }, "Did you mean 'queue'?"],
    ['a name that is not defined', { name: 'ad' }, "did you mean 'add'?"],
    ['both kinds of waiting', { scheduled: true, until: new Date() }, 'exclude each other'],
    ['a moment that is none', { until: 'tomorrow' }, 'Option until'],
    ['a moment that is no moment', { until: new Date('never') }, 'Option until'],
    ['a maximum of nothing', { max: 0 }, 'Option max'],
    ['scheduled that is no flag', { scheduled: 'yes' }, 'Option scheduled'],
    ['a queue that is no text', { queue: 7 }, 'Option queue'],
  ])('drain with %s', async (_, options, said) => {
    const { t } = await setupJobs()
    await using _t = t
    expect((await rejection(t.drain(options as never))).message).toContain(said)
  })

  it(
    'a schema on which another worker runs, once its lease might have ended',
    { timeout: 40_000 },
    async () => {
      const { attach } = setup(database)
      const { forge, pool } = setup(database)
      await using _node = await attach({ schema: 'crowded' })
      const error = await rejection(testForge(forge, pool, { schema: 'crowded' }))
      expect(error).toMatchObject({ code: 'FORGE_TEST_NOT_ALONE' })
      expect(error.message).toContain(String(process.pid))
      // It let go of the instance.
      await using _t = await testForge(forge, pool, { schema: 'quiet' })
    },
  )

  it('no node that was killed: its lease runs out', async () => {
    const { forge, pool } = setup(database)
    await using first = await testForge(forge, pool, { schema: 'haunted' })
    await first.stop()
    await database.query(
      `insert into haunted.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', 'gone', 1, '0', '{worker}', '{}', clock_timestamp() + interval '1 s')`,
    )
    await using again = await testForge(forge, pool, { schema: 'haunted' })
    expect(await again.drain()).toMatchObject({ ran: 0 })
  })

  it('nothing that an option or the environment says: an ordinary node runs jobs by itself', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('ordinary', { run: () => 'ran' })
    expect(await rejection(attach({ mode: 'manual' } as never))).toMatchObject({
      code: 'FORGE_OPTION_UNKNOWN',
    })
    expect(Object.keys(forge)).toEqual(['job', 'cron', 'daemon', 'attach'])
    await using _node = await attach()
    expect(await (await job.enqueue()).result()).toBe('ran')
  })
})
