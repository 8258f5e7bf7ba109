import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { keys, limitKit, most } from './limits-kit.js'

const database = useDatabase()
const { twoNodes, free } = limitKit(database)

/** One node whose handler of one job at a time waits for the test. */
async function oneAtATime(definition: Record<string, unknown> = {}) {
  const bundle = setup(database)
  const name = `job.${randomUUID()}`
  const started: { key: string; attempt: number; finish: (outcome?: unknown) => void }[] = []
  const job = bundle.forge.job(name, {
    concurrency: { limit: 1 },
    ...definition,
    async run(input: { key: string }, context) {
      const end = deferred<unknown>()
      context.signal.addEventListener('abort', () => end.reject(context.signal.reason))
      started.push({ key: input.key, attempt: context.attempt, finish: (outcome) => end.resolve(outcome) })
      const outcome = await end.promise
      if (outcome === 'throw') throw new Error('failed')
      return outcome === 'snooze' ? context.snooze('1h') : null
    },
  })
  const node = await bundle.attach({ lease: { ms: 900, renewMs: 300 } })
  const runs = (n: number) =>
    until(() => started.length >= n, { label: `${n} runs have begun`, deadlineMs: 20_000 })
  const states = async (...ids: string[]) =>
    Promise.all(ids.map(async (id) => (await node.jobs.get(id))?.state))
  return { ...bundle, name, job, node, started, runs, states }
}

describe('a place', () => {
  it.each([
    ['retried', 'throw', 'retryable'],
    ['snoozed', 'snooze', 'scheduled'],
  ])('is free while its job waits to be %s', async (_, outcome, state) => {
    const { job, node, started, runs, states } = await oneAtATime({ retry: { base: '1h', max: '1h' } })
    await using _node = node
    const [first, second] = await job.enqueueMany([{ key: 'a' }, { key: 'b' }])
    await runs(1)
    started[0]?.finish(outcome)
    await runs(2)
    expect(await states(first?.id ?? '')).toEqual([state])
    if (state === 'retryable') {
      // Its time has come by hand: it stands in front of the gate again and does not run beside the second.
      await node.jobs.retry(first?.id ?? '')
      expect(await states(first?.id ?? '', second?.id ?? '')).toEqual(['blocked', 'running'])
      started[1]?.finish()
      await runs(3)
    }
  })

  it('is free when its job is cancelled, before it runs as well as while it does', async () => {
    const { job, node, started, runs } = await oneAtATime()
    await using _node = node
    const handles = await job.enqueueMany([{ key: 'a' }, { key: 'b' }, { key: 'c' }])
    await runs(1)
    await handles[0]?.cancel()
    await runs(2)
    expect(started.map(({ key }) => key)).toEqual(['a', 'b'])
    await handles[2]?.cancel()
    started[1]?.finish()
    expect(await handles[1]?.result()).toBe(null)
  })

  it('is free when nobody ran its job: it was cancelled while a paused queue kept it', async () => {
    const { name, job, node, started, runs, states } = await oneAtATime({ queue: `q.${randomUUID()}` })
    await using _node = node
    const queue = (await node.queues.list()).find((each) => each.name.startsWith('q.'))?.name ?? ''
    await node.queues.pause(queue)
    const [first, second] = await job.enqueueMany([{ key: 'a' }, { key: 'b' }])
    await until(async () => (await states(first?.id ?? ''))[0] === 'available', {
      label: 'the first has the place',
    })
    expect(await states(second?.id ?? '')).toEqual(['blocked'])
    await node.queues.resume(queue)
    await runs(1)
    await first?.cancel()
    await runs(2)
    started[1]?.finish()
    await second?.result()
    expect(await free(`c/${name}`)).toBe(1)
  })

  it('stays with a job that is handed back, which goes on elsewhere without passing its gates again', async () => {
    const first = await oneAtATime()
    const handles = await first.job.enqueueMany([{ key: 'a' }, { key: 'b' }])
    await first.runs(1)
    await first.node.stop({ timeout: 0 })
    const rows = await database.query<{ state: number }>('select state from forge.job where id = $1', [
      handles[0]?.id,
    ])
    expect(rows).toEqual([{ state: 2 }])
    const other = setup(database)
    const ran: string[] = []
    other.forge.job(first.name, {
      concurrency: { limit: 1 },
      run: (input: { key: string }) => void ran.push(input.key),
    })
    await using _node = await other.attach()
    expect(await free(`c/${first.name}`)).toBe(1)
    expect(ran).toEqual(['a', 'b'])
  })

  it('does not leak when a node dies: its jobs keep their places until they have run', async () => {
    const { name, job, node, heard, started, runs } = await oneAtATime({ concurrency: { limit: 2 } })
    await using _node = node
    await job.enqueueMany(['a', 'b', 'c', 'd'].map((key) => ({ key })))
    await runs(2)
    await database.query(
      `update forge.node set state = 'dead', died_at = clock_timestamp(), lease_until = '-infinity' where id = $1`,
      [node.id],
    )
    await runs(4)
    // The same two again, and nobody beside them.
    expect(started.map(({ key }) => key).sort()).toEqual(['a', 'a', 'b', 'b'])
    expect(heard.some(({ message }) => message.includes('took back 2 jobs'))).toBe(true)
    started[2]?.finish()
    started[3]?.finish()
    await runs(6)
    started[4]?.finish()
    started[5]?.finish()
    expect(await free(`c/${name}`)).toBe(2)
  })
})

it('a job that is finished and retried passes its gates again', async () => {
  const { job, node, started, runs, states } = await oneAtATime({ retry: { attempts: 1 } })
  await using _node = node
  const [failed, cancelled, next] = await job.enqueueMany([{ key: 'a' }, { key: 'b' }, { key: 'c' }])
  const ids = [failed?.id ?? '', cancelled?.id ?? '']
  await runs(1)
  started[0]?.finish('throw')
  await runs(2)
  await cancelled?.cancel()
  await runs(3)
  expect(await states(...ids)).toEqual(['discarded', 'cancelled'])
  await node.jobs.retry(ids)
  expect(await states(...ids, next?.id ?? '')).toEqual(['blocked', 'blocked', 'running'])
  started[2]?.finish()
  await runs(4)
  started[3]?.finish()
  await runs(5)
  started[4]?.finish()
})

describe('another limit of a newer definition', () => {
  it('counts from then on, also for what waits', async () => {
    const { one, redefine, done, name } = await twoNodes({ concurrency: { limit: 1 }, queue: 'renewed' })
    await one.enqueueMany(keys(40, 1))
    await done(3)
    redefine({ concurrency: { limit: 6 }, queue: 'renewed' })
    await until(
      async () =>
        (
          await database.query(`select from forge.job_limit where gate_class = $1 and limit_n = 6`, [
            `c/${name}`,
          ])
        ).length === 1,
      {
        label: 'the new limit is written',
      },
    )
    const spans = await done(40)
    expect(most(spans)).toBeGreaterThan(2)
    expect(most(spans)).toBeLessThanOrEqual(6)
  })

  it('may be none: then all that waits goes', async () => {
    const { one, redefine, done, spans } = await twoNodes({ rate: { limit: 1, per: '1h' } })
    await one.enqueueMany(keys(20, 1))
    await done(1)
    expect(await spans()).toHaveLength(1)
    redefine({})
    await done(20)
  })

  it('of a queue is taken away by null, and by nothing else', async () => {
    const queue = `q.${randomUUID()}`
    const limitOf = async () =>
      (
        await database.query<{ n: number }>(
          'select limit_n as n from forge.job_limit where gate_class = $1',
          [`q/${queue}`],
        )
      )[0]?.n
    for (const [options, limit] of [
      [{ limit: 4 }, 4],
      [{ concurrency: 2 }, 4],
      [{ limit: 5 }, 5],
      [{ limit: null }, undefined],
    ] as const) {
      await using _node = await setup(database).attach({ queues: { [queue]: options } })
      expect(await limitOf()).toBe(limit)
    }
  })
})

it('what comes to its gate by time passes at once, not with the next look', async () => {
  const { one, done } = await twoNodes({
    concurrency: { limit: 1 },
    retry: { attempts: 7, base: '10ms', backoff: 'fixed' },
    fails: 6,
  })
  const since = performance.now()
  await one.enqueue({ key: 'again' })
  await done(1)
  // Six looks would be half a minute.
  expect(performance.now() - since).toBeLessThan(12_000)
}, 60_000)

it('jobs that nobody asked for are found by the walk', async () => {
  const { name, job, node, started, runs } = await oneAtATime()
  await using _node = node
  const handle = await job.enqueue({ key: 'known' })
  await runs(1)
  started[0]?.finish()
  await handle.result()
  await database.query(
    `insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input, gates, gate)
     select gen_random_uuid(), lane, 1, 1, 50, 5, now(), '{"key": "by hand"}', array[$1], $1 from forge.job_history where id = $2`,
    [`c/${name}`, handle.id],
  )
  await runs(2)
  expect(started[1]?.key).toBe('by hand')
  started[1]?.finish()
}, 30_000)
