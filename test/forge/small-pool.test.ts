import express from 'express'
import type pg from 'pg'
import { describe, expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { serve } from './kit.js'

const database = useDatabase()

/** All clients of the pool, until they are released. */
async function holdAll(pool: pg.Pool): Promise<Disposable & { readonly client: pg.PoolClient }> {
  const clients = await Promise.all(Array.from({ length: pool.options.max }, () => pool.connect()))
  const held = new Set(clients)
  return {
    client: clients[0] as pg.PoolClient,
    [Symbol.dispose]: () => {
      for (const client of held) client.release()
      held.clear()
    },
  }
}

describe('a host pool of size 1 whose client the host keeps', () => {
  it('does not hinder jobs: they are enqueued, run, retried, awaited and looked at', async () => {
    const { forge, pool } = setup(database, { max: 1 })
    const app = express()
    const flaky = forge.job('pool.flaky', {
      retry: { attempts: 3, base: 1, jitter: 0 },
      run: (text: string, job) => {
        if (job.attempt < 2) throw new Error('not yet')
        return text.toUpperCase()
      },
    })
    const parent = forge.job('pool.parent', {
      run: async (text: string, job) => (await job.enqueue(flaky, text)).id,
    })
    let checkouts = 0
    pool.on('acquire', () => (checkouts += 1))
    using held = await holdAll(pool)

    // The start itself gets by without the pool, too.
    await using node = await forge.attach(app, pool)
    await using site = await serve(app)
    const [plain] = await Promise.all([flaky.enqueue('plain'), parent.enqueueMany(['a', 'b', 'c'])])
    expect(await plain.result()).toBe('PLAIN')

    await held.client.query('BEGIN')
    const inside = await flaky.enqueue('inside', { tx: held.client })
    const bulk = await flaky.enqueueMany(['x', 'y'], { tx: held.client })
    expect(await node.jobs.get(inside.id)).toBeNull()
    await held.client.query('COMMIT')
    const results = Promise.all([inside, ...bulk].map((handle) => handle.result()))
    expect(await results).toEqual(['INSIDE', 'X', 'Y'])

    expect((await site.ask('/forge')).body).toContain('completed')
    expect((await node.jobs.retry(inside.id)).ids).toEqual([])
    await until(async () => (await node.jobs.counts()).completed === 10, { label: 'all jobs are done' })
    expect(checkouts).toBe(1)
    expect(pool).toMatchObject({ totalCount: 1, waitingCount: 0 })
  })

  it('makes job.transaction wait until the host releases it, and nothing else', async () => {
    const { forge, pool, attach } = setup(database, { max: 1 })
    let waiting = 0
    const bound = forge.job('pool.bound', {
      run: async (n: number, job) => {
        waiting += 1
        return job.transaction(async (tx) => (await tx.query('SELECT $1::int AS n', [n])).rows)
      },
    })
    const free = forge.job('pool.free', { queue: 'free', run: (n: number) => n })
    await using node = await attach()
    using held = await holdAll(pool)
    const results = Promise.all(
      (await bound.enqueueMany([1, 2, 3])).map((handle) => handle.result({ timeout: '20s' })),
    )
    await until(() => waiting === 3, { label: 'all three wait for the client' })
    expect(await (await free.enqueue(4)).result()).toBe(4)
    expect((await node.jobs.counts()).running).toBe(3)
    const own = node.transaction(async (tx) => (await tx.query('SELECT 5 AS n')).rows)
    held[Symbol.dispose]()
    expect(await results).toEqual([[{ n: 1 }], [{ n: 2 }], [{ n: 3 }]])
    expect(await own).toEqual([{ n: 5 }])
  })
})

describe('a host that holds all its clients longer than a lease', () => {
  it('costs the node neither its lease nor the jobs that need no client', async () => {
    const { forge, pool, attach, heard } = setup(database, { max: 3 })
    const job = forge.job('pool.starved', { run: (n: number) => n })
    await using node = await attach({ lease: { ms: '1s', renewMs: '250ms' } })
    using _held = await holdAll(pool)
    const epoch = () =>
      database.query<{ epoch: string }>('SELECT epoch FROM forge.node WHERE id = $1', [node.id])
    const [first] = await epoch()
    const since = performance.now()
    let done = 0
    await until(
      async () => {
        expect(await (await job.enqueue(done)).result()).toBe(done)
        done += 1
        return performance.now() - since > 4_000
      },
      { label: 'four leases have passed' },
    )
    expect(done).toBeGreaterThan(20)
    expect(await epoch()).toEqual([first])
    expect((await node.health()).ready).toBe(true)
    expect(heard.filter(({ message }) => /declared dead|lost contact/.test(message))).toEqual([])
  })
})
