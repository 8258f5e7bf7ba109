import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { createForge, type Leading } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { fromDebian } from './debian.js'
import { startBouncer } from './pgbouncer.js'

const program = fromDebian('pgbouncer', [
  '/usr/sbin/pgbouncer',
  '/usr/bin/pgbouncer',
  '/usr/local/bin/pgbouncer',
])
const database = useDatabase()

describe.skipIf(program === null)('through a real PgBouncer', () => {
  it.for(['session', 'transaction'] as const)('in %s mode everything works', async (mode) => {
    await using bouncer = await startBouncer(program as string, database.url, mode)
    const forge = createForge()
    const double = forge.job('double', { run: (input: { n: number }) => input.n * 2 })
    const inTransaction = forge.job('in.transaction', {
      run: async (input: { n: number }, job) => {
        await job.transaction(async (tx) => {
          await double.enqueue({ n: input.n }, { tx })
          await job.complete({ n: input.n }, { tx })
        })
        return null
      },
    })
    const forever = forge.job('forever', {
      run: (_: null, job) =>
        new Promise((_resolve, reject) => {
          job.signal.addEventListener('abort', () => reject(job.signal.reason as Error))
        }),
    })
    let [running, runningMax] = [0, 0]
    const limited = forge.job('limited', {
      concurrency: { limit: 2 },
      run: async () => {
        runningMax = Math.max(runningMax, ++running)
        await pause(50)
        running -= 1
      },
    })

    const pool = database.pool({ connectionString: bouncer.url, max: 4 })
    const url = new URL(bouncer.url)
    expect((pool.options as { connectionString?: string }).connectionString).toContain(`:${url.port}/`)
    await using node = await forge.attach(null, pool, { logger: false, lease: { ms: 3_000, renewMs: 500 } })
    const { checks, ready } = await node.health()
    expect(ready).toBe(true)
    expect(checks.find(({ name }) => name === 'connection')?.detail).toBe(`through a pooler in ${mode} mode`)

    const bulk = await double.enqueueMany(Array.from({ length: 50 }, (_, n) => ({ n })))
    const results = await Promise.all(bulk.map((handle) => handle.result({ timeout: '20s' })))
    expect(results).toEqual(results.map((_, n) => n * 2))
    const committed = await node.transaction((tx) => inTransaction.enqueue({ n: 7 }, { tx }))
    expect(await committed.result({ timeout: '20s' })).toEqual({ n: 7 })

    const endless = await forever.enqueue(null)
    const state = async (): Promise<string | undefined> => (await node.jobs.get(endless.id))?.state
    await until(async () => (await state()) === 'running', { label: 'it runs' })
    await node.jobs.cancel(endless.id)
    await until(async () => (await state()) === 'cancelled', { label: 'it was cancelled' })

    const many = await Promise.all(Array.from({ length: 8 }, () => limited.enqueue()))
    await Promise.all(many.map((handle) => handle.result({ timeout: '30s' })))
    expect(runningMax).toBe(2)
    const led = deferred<Leading>()
    const post = node.whileLeading('bounced', (leading) => {
      led.resolve(leading)
      return new Promise((resolve) => leading.signal.addEventListener('abort', () => resolve()))
    })
    const { term } = await led.promise
    // A lock that a pooler gives may mean nothing: there the term alone decides.
    expect(await node.cluster.leader('bounced')).toMatchObject({ node: node.id, term, locked: false })
    await post.stop()
    expect(await node.cluster.leader('bounced')).toBeNull()
    const left = async (): Promise<unknown> => (await database.query('select from forge.job limit 1'))[0]
    await until(async () => !(await left()), { label: 'all jobs ended' })
  })
})
