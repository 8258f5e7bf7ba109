import express from 'express'
import { describe, expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { forgeConnections, serve } from './kit.js'

const database = useDatabase()

/** Looks again and again while `work` goes on; gives the largest set of connections that it saw. */
async function mostDuring(work: Promise<unknown>): Promise<string[]> {
  let most: string[] = []
  let busy = true
  const done = work.finally(() => (busy = false))
  while (busy) {
    const now = await forgeConnections(database)
    if (now.length > most.length) most = now
  }
  await done
  return most
}

describe('connections of forge', () => {
  it('are at most 3 for a gateway, whatever it is asked to enqueue, and the pool’s are the host’s', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('gateway.load', { run: () => 1 })
    await using node = await attach({ roles: ['gateway'] })
    const work = Promise.all(Array.from({ length: 300 }, (_, n) => job.enqueue(n)))
    const most = await mostDuring(work)
    expect(most).toEqual(['forge:control', 'forge:listen', 'forge:pulse'])
    expect(pool.totalCount).toBe(0)
    await node.jobs.cancel({ all: true })
  })

  it('are at most 6 for a busy worker, the pulse included', async () => {
    const { forge, attach, pool } = setup(database, { max: 3 })
    const job = forge.job('worker.load', {
      run: (n: number, context) =>
        context.transaction(async (tx) => (await tx.query('SELECT $1::int', [n])).rows),
    })
    await using node = await attach({ roles: ['worker', 'scheduler'], concurrency: 20 })
    const work = job
      .enqueueMany(Array.from({ length: 500 }, (_, n) => n))
      .then((handles) => Promise.all(handles.map((handle) => handle.result())))
    const most = await mostDuring(work)
    console.log(`A busy worker has ${most.length} connections: ${most.join(', ')}.`)
    expect(most.length).toBeLessThanOrEqual(6)
    expect(most).toContain('forge:pulse')
    expect(pool.totalCount).toBeLessThanOrEqual(3)
    expect((await node.health()).ready).toBe(true)
  })

  it('grow by one when somebody looks, and by no more however many look', async () => {
    const { forge, pool } = setup(database)
    const app = express()
    await using node = await forge.attach(app, pool)
    await using site = await serve(app)
    const before = await forgeConnections(database)
    const answers = await Promise.all(Array.from({ length: 20 }, () => site.ask('/forge')))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(await forgeConnections(database)).toEqual([...before, 'forge:reader'].sort())
    expect(pool.totalCount).toBe(0)
    await node.stop()
    await until(async () => (await forgeConnections(database)).length === 0, { label: 'all are closed' })
  })
})
