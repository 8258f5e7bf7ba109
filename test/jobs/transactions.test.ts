import { beforeAll, describe, expect, it } from 'vitest'
import { isForgeError } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
beforeAll(async () => {
  await database.query('create table effect (job uuid not null, note text); grant all on effect to public')
})

describe("enqueue in the caller's transaction", () => {
  it('makes the job exist when the transaction commits, and wakes a worker right after', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('tx.commit', { run: () => 'done' })
    await using node = await attach()
    const client = await pool.connect()
    await client.query('begin')
    const handle = await job.enqueue({}, { tx: client })
    expect(await node.jobs.get(handle.id)).toBeNull()
    await client.query('commit')
    client.release()
    const committed = performance.now()
    expect(await handle.result()).toBe('done')
    expect(performance.now() - committed).toBeLessThan(3_000)
  })

  it('leaves nothing behind when the transaction rolls back', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('tx.rollback', { run: () => 'done' })
    await using node = await attach()
    const client = await pool.connect()
    await client.query('begin')
    const handles = await job.enqueueMany([{}, {}, {}], { tx: client })
    await client.query('rollback')
    client.release()
    for (const { id } of handles) expect(await node.jobs.get(id)).toBeNull()
    await expect(handles[0]?.result({ timeout: '100ms' })).rejects.toMatchObject({
      code: 'FORGE_RESULT_TIMEOUT',
    })
  })

  it('joins the rows and the jobs of node.transaction, and its hint goes out at the commit', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('tx.node', { run: () => 'done' })
    await using node = await attach()
    const handle = await node.transaction(async (tx) => {
      const made = await job.enqueue({}, { tx })
      await tx.query('insert into effect values ($1, $2)', [made.id, 'row'])
      return made
    })
    expect(await handle.result()).toBe('done')
    expect(await database.query('select note from effect where job = $1', [handle.id])).toEqual([
      { note: 'row' },
    ])
  })

  it('sends no NOTIFY inside the transaction', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('tx.quiet', { run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    const sent: string[] = []
    const client = await pool.connect()
    await client.query('begin')
    const tx = {
      query: (text: string, values?: unknown[]) => {
        sent.push(text)
        return client.query(text, values)
      },
    }
    await job.enqueue({}, { tx })
    await client.query('rollback')
    client.release()
    expect(sent).toHaveLength(1)
    expect(sent[0]).not.toMatch(/notify/i)
  })
})

describe('job.transaction and job.complete', () => {
  it('commits effects and completion together', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('complete.in.tx', {
      run: (_input: unknown, job) =>
        job.transaction(async (tx) => {
          await tx.query('insert into effect values ($1, $2)', [job.id, 'effect'])
          await job.complete({ by: 'tx' }, { tx })
        }),
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    expect(await handle.result()).toEqual({ by: 'tx' })
    expect(await database.query('select note from effect where job = $1', [handle.id])).toEqual([
      { note: 'effect' },
    ])
    expect(await node.jobs.get(handle.id)).toMatchObject({ state: 'completed', attempt: 1 })
  })

  it('fails the attempt when the transaction did not commit, and the effect with it', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('complete.lost', {
      retry: { attempts: 2, base: '10ms' },
      async run(_input: unknown, job) {
        if (job.attempt === 2) return 'second'
        const client = await pool.connect()
        await client.query('begin')
        await client.query('insert into effect values ($1, $2)', [job.id, 'undone'])
        await job.complete('first', { tx: client })
        await client.query('rollback')
        client.release()
        return 'ignored'
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    expect(await handle.result()).toBe('second')
    expect((await node.jobs.get(handle.id))?.errors[0]).toMatchObject({
      code: 'FORGE_COMPLETE_NOT_COMMITTED',
    })
    expect(await database.query('select 1 from effect where job = $1', [handle.id])).toEqual([])
  })

  it('refuses the transaction of a claim that is no longer the current one', async () => {
    const { forge, attach, pool } = setup(database)
    const seen: unknown[] = []
    const stolen = deferred<void>()
    const job = forge.job('stolen', {
      async run(_input: unknown, job) {
        if (job.fence.n > 1) return 'second claim'
        await stolen.promise
        await job.transaction(async () => seen.push('inside')).catch((error: unknown) => seen.push(error))
        const client = await pool.connect()
        await client.query('begin')
        await job.complete('late', { tx: client }).catch((error: unknown) => seen.push(error))
        await client.query('rollback')
        client.release()
        return 'first claim'
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.state === 'running', { label: 'running' })
    const back = `update forge.job set state = 2, token = null, node = null, epoch = null where id = $1`
    await database.query(back, [handle.id])
    stolen.resolve()
    await until(() => seen.length === 2, { label: 'both refused' })
    expect(seen.map((error) => isForgeError(error, 'FORGE_LEASE_LOST'))).toEqual([true, true])
    expect(await handle.result({ timeout: '15s' })).toBe('second claim')
  })

  it('lets a job enqueue others, also in its own transaction', async () => {
    const { forge, attach } = setup(database)
    const child = forge.job('child', { run: (input: { n: number }) => input.n * 2 })
    const parent = forge.job('parent', {
      run: (_input: unknown, job) =>
        job.transaction(async (tx) => {
          const made = await job.enqueue(child, { n: 21 }, { tx })
          return made.id
        }),
    })
    await using node = await attach()
    const id = await (await parent.enqueue({})).result()
    await until(async () => (await node.jobs.get(id))?.state === 'completed', { label: 'the child ran' })
    expect((await node.jobs.get(id))?.result).toBe(42)
  })
})
