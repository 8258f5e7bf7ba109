import { describe, expect, it } from 'vitest'
import { fromDrizzle, type JobDefinition } from '../../src/index.js'
import { drizzle } from 'drizzle-orm/node-postgres'
import { useDatabase } from '../support/database.js'
import { bench, rejection } from './test-forge-kit.js'

const database = useDatabase()
type Job = JobDefinition<{ n: number }, unknown>

async function setupJobs() {
  const ran: string[] = []
  const jobs = {} as Record<
    'leaf' | 'parent' | 'brave' | 'fails' | 'again' | 'forgets' | 'inTx' | 'waits',
    Job
  >
  const t = await bench(
    database,
    (forge) => {
      const note = (name: string, n: number): number => ran.push(`${name} ${n}`)
      jobs.leaf = forge.job('leaf', { run: ({ n }: { n: number }) => (note('leaf', n), n * 2) })
      jobs.fails = forge.job('fails', {
        retry: { base: '1h' },
        run({ n }: { n: number }) {
          note('fails', n)
          throw new RangeError(`no ${n}`)
        },
      })
      jobs.parent = forge.job('parent', {
        async run({ n }: { n: number }) {
          note('parent begins', n)
          await jobs.leaf.enqueue({ n: n + 1 })
          note('parent ends', n)
        },
      })
      jobs.brave = forge.job('brave', {
        async run({ n }: { n: number }) {
          await jobs.fails.enqueue({ n })
          note('brave ends', n)
        },
      })
      jobs.again = forge.job('again', {
        async run({ n }: { n: number }, job) {
          note('again', n)
          await job.again({ n: n + 1 })
        },
      })
      jobs.forgets = forge.job('forgets', {
        run({ n }: { n: number }) {
          void jobs.parent.enqueue({ n })
        },
      })
      jobs.inTx = forge.job('in.tx', {
        run: ({ n }: { n: number }, job) =>
          job.transaction(async (tx) => {
            await jobs.leaf.enqueue({ n }, { tx })
            note('tx ends', n)
          }),
      })
      jobs.waits = forge.job('waits', {
        async run({ n }: { n: number }) {
          const handle = await jobs.leaf.enqueue({ n })
          return handle.result({ timeout: '2s' })
        },
      })
    },
    { mode: 'inline' },
  )
  return { t, ran, ...jobs }
}

describe('inline mode', () => {
  it('runs a job before enqueue returns, and gives its result at once', async () => {
    const { t, ran, leaf } = await setupJobs()
    await using _ = t
    const handle = await leaf.enqueue({ n: 4 })
    expect(ran).toEqual(['leaf 4'])
    expect(await handle.result()).toBe(8)
    expect(await t.node.jobs.get(handle.id)).toMatchObject({ state: 'completed', attempt: 1 })
  })

  it('runs the jobs of enqueueMany in their order', async () => {
    const { t, ran, leaf } = await setupJobs()
    await using _ = t
    await leaf.enqueueMany([{ n: 1 }, { n: 2 }, { n: 3 }])
    expect(ran).toEqual(['leaf 1', 'leaf 2', 'leaf 3'])
  })

  it('runs what a handler enqueues before that handler goes on', async () => {
    const { t, ran, parent, waits } = await setupJobs()
    await using _ = t
    await parent.enqueue({ n: 1 })
    expect(ran).toEqual(['parent begins 1', 'leaf 2', 'parent ends 1'])
    expect(await (await waits.enqueue({ n: 5 })).result()).toBe(10)
  })

  it('waits for what a handler did not wait for', async () => {
    const { t, ran, forgets } = await setupJobs()
    await using _ = t
    await forgets.enqueue({ n: 1 })
    expect(ran).toEqual(['parent begins 1', 'leaf 2', 'parent ends 1'])
  })

  it('throws what the handler threw, and keeps the job for its retry', async () => {
    const { t, ran, fails } = await setupJobs()
    await using _ = t
    const error = await rejection(fails.enqueue({ n: 1 }))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toBe('no 1')
    expect(error.stack).toContain('inline.test.ts')
    expect(await t.node.jobs.list({ state: 'retryable' })).toHaveLength(1)
    expect(await t.drain({ scheduled: true, max: 1 })).toMatchObject({ ran: 1, retryable: 1 })
    expect(ran).toEqual(['fails 1', 'fails 1'])
  })

  it('throws all that failed in a list, after all of it has run', async () => {
    const { t, ran, fails } = await setupJobs()
    await using _ = t
    const error = await rejection(fails.enqueueMany([{ n: 1 }, { n: 2 }]))
    expect(error).toBeInstanceOf(AggregateError)
    expect(error.message).toBe('2 jobs failed: no 1; no 2')
    expect(ran).toEqual(['fails 1', 'fails 2'])
  })

  it('lets a handler go on when what it enqueued failed, as it would in production, and throws it to the test', async () => {
    const { t, ran, brave } = await setupJobs()
    await using _ = t
    expect(await rejection(brave.enqueue({ n: 3 }))).toMatchObject({ message: 'no 3' })
    expect(ran).toEqual(['fails 3', 'brave ends 3'])
    expect(await t.node.jobs.list({ name: 'brave' })).toMatchObject([{ state: 'completed' }])
  })

  it('ends a chain that enqueues itself', async () => {
    const { t, ran, again } = await setupJobs()
    await using _ = t
    expect(await rejection(again.enqueue({ n: 1 }))).toMatchObject({ code: 'FORGE_TEST_ENDLESS' })
    expect(ran).toHaveLength(20)
  })

  it('runs the jobs of a transaction of forge after its commit, and before the call returns', async () => {
    const { t, ran, leaf, fails, inTx } = await setupJobs()
    await using _ = t
    await t.node.transaction(async (tx) => {
      await leaf.enqueue({ n: 1 }, { tx })
      ran.push('still in it')
    })
    expect(ran.splice(0)).toEqual(['still in it', 'leaf 1'])
    const failed = rejection(t.node.transaction((tx) => fails.enqueue({ n: 2 }, { tx })))
    expect(await failed).toMatchObject({ message: 'no 2' })
    ran.splice(0)
    await inTx.enqueue({ n: 3 })
    expect(ran).toEqual(['tx ends 3', 'leaf 3'])
  })

  it("leaves the jobs of another library's transaction to drain()", async () => {
    const { t, ran, leaf } = await setupJobs()
    await using _ = t
    await drizzle(database.pool()).transaction((tx) => leaf.enqueue({ n: 1 }, { tx: fromDrizzle(tx) }))
    expect(ran).toEqual([])
    expect(await t.drain()).toMatchObject({ ran: 1, completed: 1 })
  })

  it('leaves what is to run later to drain(), which counts what its handlers enqueue', async () => {
    const { t, ran, parent } = await setupJobs()
    await using _ = t
    await parent.enqueue({ n: 1 }, { delay: '1d' })
    expect(ran).toEqual([])
    expect(await t.drain({ scheduled: true })).toMatchObject({ ran: 2, completed: 2 })
    expect(ran).toEqual(['parent begins 1', 'leaf 2', 'parent ends 1'])
  })

  it('reports in drain() what failed further down, and throws nothing', async () => {
    const { t, brave } = await setupJobs()
    await using _ = t
    await brave.enqueue({ n: 1 }, { delay: '1d' })
    const report = await t.drain({ until: new Date(Date.now() + 2 * 86_400_000), max: 5 })
    expect(report).toMatchObject({ completed: 1 })
    expect(report.failures.length).toBeGreaterThan(0)
    expect(report.failures[0]).toMatchObject({ name: 'fails', error: { message: 'no 1' } })
  })

  it('runs what is enqueued at the same time one after the other', async () => {
    const { t, ran, leaf, parent } = await setupJobs()
    await using _ = t
    await Promise.all([leaf.enqueue({ n: 1 }), parent.enqueue({ n: 10 }), leaf.enqueue({ n: 2 })])
    expect([...ran].sort()).toEqual(['leaf 1', 'leaf 11', 'leaf 2', 'parent begins 10', 'parent ends 10'])
  })

  it('runs a repeated id once', async () => {
    const { t, ran, leaf } = await setupJobs()
    await using _ = t
    const id = crypto.randomUUID()
    await leaf.enqueue({ n: 1 }, { id })
    expect(await leaf.enqueue({ n: 1 }, { id })).toMatchObject({ created: false })
    expect(ran).toEqual(['leaf 1'])
  })
})
