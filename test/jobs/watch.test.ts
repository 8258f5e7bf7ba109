import { describe, expect, it } from 'vitest'
import type { JobSnapshot } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const nobody = '00000000-0000-7000-8000-000000000000'

/** A job whose handler does what the test tells it to. */
function stepped(name: string) {
  const here = setup(database)
  const steps = { started: deferred<void>(), half: deferred<void>(), end: deferred<void>() }
  const job = here.forge.job(name, {
    retry: { attempts: 2, base: '10ms', jitter: 0 },
    async run(input: { fails?: boolean }, context) {
      if (input.fails && context.attempt === 1) throw new Error('the first attempt')
      steps.started.resolve()
      await steps.half.promise
      context.progress(50, 'half')
      await steps.end.promise
      return { done: name }
    },
  })
  return { ...here, ...steps, job }
}

async function all(watch: AsyncIterable<JobSnapshot>): Promise<JobSnapshot[]> {
  const seen: JobSnapshot[] = []
  for await (const snapshot of watch) seen.push(snapshot)
  return seen
}

describe('watch', () => {
  it('shows how a job goes, from another process too, and ends with its result', async () => {
    const { attach, job, half, end } = stepped('watched')
    const gateway = await setup(database).attach({ roles: ['gateway'] })
    await using _gateway = gateway
    await using node = await attach()
    const handle = await job.enqueue({ fails: true })
    for (const jobs of [node.jobs, gateway.jobs]) {
      const seen: JobSnapshot[] = []
      for await (const snapshot of jobs.watch(handle.id)) {
        seen.push(snapshot)
        if (snapshot.state === 'running') half.resolve()
        if (snapshot.progress) end.resolve()
      }
      expect(seen.at(-1)).toMatchObject({
        id: handle.id,
        state: 'completed',
        attempt: 2,
        attempts: 2,
        result: { done: 'watched' },
        resultTooLarge: false,
        error: { message: 'the first attempt' },
        progress: null,
      })
      // The second watcher comes when all is over: one snapshot, and the end.
      if (jobs === gateway.jobs) expect(seen).toHaveLength(1)
    }
  })

  it('shows progress of another process while it runs', async () => {
    const { attach, job, started, half, end } = stepped('remote')
    await using gateway = await setup(database).attach({ roles: ['gateway'] })
    await using _node = await attach()
    const handle = await job.enqueue({})
    await started.promise
    const watch = gateway.jobs.watch(handle.id)
    expect(await watch.next()).toMatchObject({
      done: false,
      value: { state: 'running', attempt: 1, progress: null },
    })
    half.resolve()
    expect(await watch.next()).toMatchObject({
      value: { state: 'running', progress: { percent: 50, message: 'half' } },
    })
    await gateway.jobs.cancel(handle.id, 'enough')
    expect(await watch.next()).toMatchObject({ value: { cancelRequested: true, reason: 'enough' } })
    end.resolve()
    expect(await watch.next()).toMatchObject({ value: { state: 'completed', result: { done: 'remote' } } })
    expect(await watch.next()).toEqual({ value: undefined, done: true })
    expect(await watch.next()).toEqual({ value: undefined, done: true })
  })

  it('gives a slow reader the newest, not what he missed', async () => {
    const { attach, job, started, half, end } = stepped('slow.reader')
    await using node = await attach()
    const handle = await job.enqueue({}, { delay: '50ms' })
    const watch = node.jobs.watch(handle.id)
    expect(await watch.next()).toMatchObject({ value: { state: 'scheduled' } })
    await started.promise
    half.resolve()
    end.resolve()
    await handle.result()
    await until(async () => (await node.jobs.get(handle.id))?.state === 'completed', { label: 'completed' })
    const rest = await all(watch)
    expect(rest.at(-1)).toMatchObject({ state: 'completed' })
    expect(rest.length).toBeLessThanOrEqual(2)
  })

  it('is told of the end of a waiting job at once', async () => {
    const { attach, job } = stepped('ended.waiting')
    await using node = await attach()
    const handle = await job.enqueue({}, { delay: '1h' })
    const watch = node.jobs.watch(handle.id)
    await watch.next()
    const next = watch.next()
    await node.jobs.discard(handle.id, 'no use')
    expect(await next).toMatchObject({ value: { state: 'discarded', reason: 'no use' } })
    expect((await watch.next()).done).toBe(true)
  })

  it('ends quietly by break, by return() while it waits, and by its signal', async () => {
    const { attach, job } = stepped('left')
    await using node = await attach()
    const { id } = await job.enqueue({}, { delay: '1h' })
    for await (const snapshot of node.jobs.watch(id)) {
      expect(snapshot.state).toBe('scheduled')
      break
    }
    const returned = node.jobs.watch(id)
    await returned.next()
    const pending = [returned.next(), returned.next()]
    await returned.return?.()
    expect(await Promise.all(pending)).toEqual([1, 2].map(() => ({ value: undefined, done: true })))
    const abort = new AbortController()
    const aborted = node.jobs.watch(id, { signal: abort.signal })
    await aborted.next()
    const last = aborted.next()
    abort.abort()
    expect((await last).done).toBe(true)
    expect(await all(node.jobs.watch(id, { signal: abort.signal }))).toEqual([])
    {
      await using scoped = node.jobs.watch(id)
      await scoped.next()
    }
  })

  it('asks nothing more when nobody watches', async () => {
    const { attach, job } = stepped('quiet')
    await using node = await attach()
    const { id } = await job.enqueue({}, { delay: '1h' })
    const watch = node.jobs.watch(id)
    await watch.next()
    await watch.return?.()
    // What was on its way when the watch ended may still arrive; after that, none.
    await until(async () => (await pollsBegun('150 ms')) === 0, { label: 'no poll for a while' })
    // Polls are at most 1 s apart.
    await database.query('select pg_sleep(1.1)')
    expect(await pollsBegun('1200 ms')).toBe(0)
  })

  it('throws for a job that is not there, and for one that vanishes', async () => {
    const { attach, forge } = stepped('vanishing')
    const gate = deferred<void>()
    const job = forge.job('vanishes', { keep: { completed: 0 }, run: () => gate.promise })
    await using node = await attach()
    await expect(all(node.jobs.watch(nobody))).rejects.toMatchObject({ code: 'FORGE_JOB_UNKNOWN' })
    const { id } = await job.enqueue({})
    const watch = node.jobs.watch(id)
    expect((await watch.next()).done).toBe(false)
    gate.resolve()
    await expect(all(watch)).rejects.toMatchObject({ code: 'FORGE_RESULT_NOT_KEPT' })
  })

  it('rejects when the node stops', async () => {
    const { attach, job } = stepped('stopped')
    const node = await attach()
    const { id } = await job.enqueue({}, { delay: '1h' })
    const watch = node.jobs.watch(id)
    await watch.next()
    const next = expect(watch.next()).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
    await node.stop()
    await next
    await expect(node.jobs.watch(id).next()).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
  })

  it('refuses what is no id and no signal', async () => {
    const { attach } = stepped('refused')
    await using node = await attach({ roles: ['gateway'] })
    expect(() => node.jobs.watch(`x'; --`)).toThrow('ids must be a list of job ids')
    expect(() => node.jobs.watch(nobody, { signal: {} as AbortSignal })).toThrow('must be an AbortSignal')
    expect(() => node.jobs.watch(nobody, { singal: 1 } as never)).toThrow("Did you mean 'signal'?")
  })

  it('serves many watchers and waiters with one statement at a time', async () => {
    const { attach, forge } = stepped('crowd')
    const job = forge.job('crowded', { queue: 'crowded', run: (n: number) => n })
    const gateway = await attach({ queues: { crowded: false } })
    await using _gateway = gateway
    const handles = await job.enqueueMany(Array.from({ length: 60 }, (_, n) => n))
    const watches = handles.map(({ id }) => all(gateway.jobs.watch(id)))
    const results = handles.map((handle) => handle.result())
    const worker = setup(database)
    worker.forge.job('crowded', { queue: 'crowded', run: (n: number) => n })
    await using _worker = await worker.attach()
    expect(await Promise.all(results)).toEqual(handles.map((_, n) => n))
    const ends = (await Promise.all(watches)).map((seen) => seen.at(-1))
    expect(ends.map((end) => end?.result)).toEqual(handles.map((_, n) => n))
  })
})

/** How many statements the connections of forge have begun to poll with: seen by the time of the last one. */
/** How many sessions have the poll of a watch as their last statement, begun within that time. */
async function pollsBegun(within: string): Promise<number> {
  const rows = await database.query<{ polls: number }>(
    `select count(*)::int as polls from pg_stat_activity
     where datname = current_database() and application_name = 'forge:control'
       and query like '%as cancel_requested, j.node%'
       and query_start > clock_timestamp() - $1::interval`,
    [within],
  )
  return rows[0]?.polls ?? 0
}
