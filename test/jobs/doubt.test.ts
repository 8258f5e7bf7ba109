import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { Discard } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { markClaimed } from '../support/claimed.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }

/** A handler that runs until the test opens the gate. */
function gated() {
  const gate = deferred<void>()
  const started = deferred<string>()
  return { gate, started }
}

describe('a row that somebody else has locked', () => {
  it('holds up the end of its own job and of no other, and costs no result', async () => {
    const { forge, attach, pool } = setup(database)
    const { gate, started } = gated()
    const held = forge.job('held', {
      async run(_input: unknown, job) {
        started.resolve(job.id)
        await gate.promise
        return 'kept'
      },
    })
    const free = forge.job('free', { run: () => 'free' })
    await using _node = await attach()
    const handle = await held.enqueue({})
    const client = await pool.connect()
    await client.query('begin')
    await client.query('select 1 from forge.job where id = $1 for update', [await started.promise])
    gate.resolve()
    expect(await (await free.enqueue({})).result({ timeout: '4s' })).toBe('free')
    await client.query('rollback')
    client.release()
    expect(await handle.result()).toBe('kept')
  })

  it('does not take progress for a lost lease, nor keep the node from its other work', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('progress.in.transaction', {
      run: (_input: unknown, job) =>
        job.transaction(async (tx) => {
          job.progress(50, 'inside')
          await tx.query('select pg_sleep(0.2)')
          await job.complete({ aborted: job.signal.aborted }, { tx })
        }),
    })
    await using _node = await attach()
    const before = performance.now()
    expect(await (await job.enqueue({})).result()).toEqual({ aborted: false })
    expect(performance.now() - before).toBeLessThan(4_000)
  })

  it(
    'makes cancel say that the job is busy while its own transaction runs',
    { timeout: 20_000 },
    async () => {
      const { forge, attach } = setup(database)
      const { gate, started } = gated()
      const job = forge.job('busy', {
        run: (_input: unknown, job) =>
          job.transaction(async () => {
            started.resolve(job.id)
            await gate.promise
          }),
      })
      await using node = await attach()
      const handle = await job.enqueue({})
      await started.promise
      await expect(node.jobs.cancel(handle.id)).rejects.toMatchObject({ code: 'FORGE_JOB_BUSY' })
      gate.resolve()
      expect(await handle.result()).toBeNull()
    },
  )
})

describe('hints and marks', () => {
  it('cancels nothing for a forged hint', async () => {
    const { forge, attach } = setup(database)
    const { gate, started } = gated()
    const job = forge.job('forged', {
      async run(_input: unknown, job) {
        started.resolve(job.id)
        await gate.promise
        return job.signal.aborted
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await started.promise
    const message = JSON.stringify({ n: 'x', t: { 'jobs.cancel': [handle.id], 'jobs.later': ['seen'] } })
    await database.query(`select pg_notify('forge_forge', $1)`, [message])
    // A job that is due in a moment runs after the look that the message caused.
    const after = forge.job('after', { run: () => null })
    await (await after.enqueue({}, { delay: '100ms' })).result()
    gate.resolve()
    expect(await handle.result()).toBe(false)
    expect((await node.jobs.get(handle.id))?.cancelRequested).toBe(false)
  })

  it('keeps the reason of a cancel', async () => {
    const { forge, attach } = setup(database)
    const { started } = gated()
    const job = forge.job('with.reason', {
      run: (_input: unknown, job) => {
        started.resolve(job.id)
        return new Promise((_, reject) =>
          job.signal.addEventListener('abort', () => reject(new Error('stopped'))),
        )
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await started.promise
    await handle.cancel('customer asked')
    await handle.result().catch(() => {})
    expect(await node.jobs.get(handle.id)).toMatchObject({ state: 'cancelled', reason: 'customer asked' })
  })

  it('does not run a cancelled job again after its node was lost', async () => {
    const { forge, attach } = setup(database)
    let ran = 0
    const job = forge.job('cancelled.orphan', { run: () => ++ran })
    const first = await attach({ roles: ['gateway'], lease })
    const { id } = await job.enqueue({})
    await first.stop()
    await markClaimed(database, [id], { set: { cancel_at: new Date(), cancel_reason: 'no longer' } })
    await using node = await attach({ lease })
    await until(async () => (await node.jobs.get(id))?.state === 'cancelled', { label: 'cancelled' })
    expect(ran).toBe(0)
    expect((await node.jobs.get(id))?.reason).toBe('no longer')
  })

  it('finds a lane that was committed late under a lower number', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('late.lane', { run: (_input: unknown, job) => job.queue })
    await using _node = await attach()
    await (await job.enqueue({}, { queue: 'first' })).result()
    await database.query(
      `insert into forge.job_lane (id, queue, name) overriding system value
       select min(id) - 1, 'slow', 'late.lane' from forge.job_lane`,
    )
    const [row] = await database.query<{ id: string }>(
      `insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input)
       select gen_random_uuid(), min(id), 2, 2, 50, 5, now(), '{}' from forge.job_lane returning id`,
    )
    const done = async (): Promise<boolean> =>
      (await database.query('select 1 from forge.job_history where id = $1', [row?.id])).length === 1
    await until(done, { label: 'claimed from the late lane', deadlineMs: 15_000 })
  })

  it('wakes another node for what it hands back when it stops', async () => {
    const here = setup(database)
    const there = setup(database)
    const { started } = gated()
    const job = here.forge.job('handed.back', {
      queue: 'handed',
      run: (_input: unknown, job) => {
        started.resolve(job.id)
        return new Promise((_, reject) =>
          job.signal.addEventListener('abort', () => reject(new Error('stopped'))),
        )
      },
    })
    there.forge.job('handed.back', { queue: 'handed', run: () => 'there' })
    const node = await here.attach()
    const { id } = await job.enqueue({})
    await started.promise
    await using other = await there.attach()
    const stopped = performance.now()
    await node.stop({ timeout: 0 })
    await until(async () => (await other.jobs.get(id))?.state === 'completed', { label: 'done there' })
    // By hint in some milliseconds; the poll alone comes every 5 s.
    expect(performance.now() - stopped).toBeLessThan(3_500)
  })
})

describe('what is stored', () => {
  it('must satisfy the schema as JSON, as the handler will see it', async () => {
    const { forge, attach } = setup(database)
    const dated = forge.job('dated', { input: z.object({ at: z.date() }), run: () => null })
    const optional = forge.job('optional', {
      input: z.object({ a: z.string() }).optional(),
      run: (input) => input ?? 'none',
    })
    await using _node = await attach()
    await expect(dated.enqueue({ at: new Date() })).rejects.toMatchObject({ code: 'FORGE_INPUT_INVALID' })
    expect(await (await optional.enqueue()).result()).toBe('none')
  })

  it('knows an id in any case, also in a transaction and when the job is done', async () => {
    const { forge, attach, pool } = setup(database)
    let runs = 0
    const job = forge.job('cased', { run: () => ++runs })
    await using node = await attach()
    const id = 'ABCDEF01-2345-7678-9ABC-DEF012345678'
    expect((await job.enqueue({}, { id })).created).toBe(true)
    await until(async () => (await node.jobs.get(id))?.state === 'completed', { label: 'completed' })
    const client = await pool.connect()
    await client.query('begin')
    const again = await job.enqueue({}, { id, tx: client })
    await client.query('commit')
    client.release()
    expect(again.created).toBe(false)
    expect(await again.result()).toBe(1)
    expect(runs).toBe(1)
  })

  it('names what the handler threw, not the transaction that fell with it', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('declined', {
      run: (_input: unknown, job) =>
        job.transaction(async (tx) => {
          await job.complete('paid', { tx })
          throw new Discard('card declined')
        }),
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_JOB_DISCARDED' })
    expect(await node.jobs.get(handle.id)).toMatchObject({
      state: 'discarded',
      reason: 'card declined',
      attempt: 1,
    })
  })

  it("is read with forge's own parsers, whatever the host set for the whole process", async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('parsed', { run: () => null })
    const [timestamptz, jsonb] = [1184, 3802]
    const standing = [pg.types.getTypeParser(timestamptz), pg.types.getTypeParser(jsonb)] as const
    try {
      pg.types.setTypeParser(timestamptz, (text) => text)
      pg.types.setTypeParser(jsonb, (text) => text)
      await using node = await attach()
      const handle = await job.enqueue({ a: 1 })
      expect(await handle.result()).toBeNull()
      const stored = await node.jobs.get(handle.id)
      expect(stored?.input).toEqual({ a: 1 })
      expect(Math.abs((stored?.createdAt.getTime() ?? 0) - Date.now())).toBeLessThan(60_000)
    } finally {
      pg.types.setTypeParser(timestamptz, standing[0])
      pg.types.setTypeParser(jsonb, standing[1])
    }
  })

  it('fails the attempt when a result does not satisfy the output schema', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('bad.output', {
      output: z.object({ n: z.number() }),
      retry: { attempts: 1 },
      run: () => ({ n: 'text' }) as unknown as { n: number },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await handle.result().catch(() => {})
    expect((await node.jobs.get(handle.id))?.errors[0]).toMatchObject({ code: 'FORGE_RESULT_INVALID' })
  })
})
