import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { JobContext } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { behindProxy } from '../forge/kit.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

describe('node.jobs', () => {
  it('lists newest first, page by page, over waiting and finished jobs alike', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('paged', { queue: 'paged', run: () => null })
    await using node = await attach()
    const done = await job.enqueueMany([{}, {}, {}])
    await Promise.all(done.map((handle) => handle.result()))
    const waiting = await job.enqueueMany([{}, {}], { delay: '1h' })
    const all = [...done, ...waiting].map((handle) => handle.id).reverse()
    const first = await node.jobs.list({ queue: 'paged', limit: 2 })
    const second = await node.jobs.list({ queue: 'paged', limit: 2, before: first.at(-1)?.id as string })
    const third = await node.jobs.list({ queue: 'paged', limit: 2, before: second.at(-1)?.id as string })
    expect([...first, ...second, ...third].map((item) => item.id)).toEqual(all)
    expect((await node.jobs.list({ name: 'paged', state: 'scheduled' })).length).toBe(2)
    expect((await node.jobs.list({ name: 'paged', state: ['completed', 'discarded'] })).length).toBe(3)
  })

  it('counts every state, finished ones included', async () => {
    const { forge, attach } = setup(database)
    const good = forge.job('counted', { queue: 'counted', run: () => null })
    const bad = forge.job('counted.bad', {
      queue: 'counted',
      retry: { attempts: 1 },
      run() {
        throw new Error('bad')
      },
    })
    await using node = await attach()
    const before = await node.jobs.counts()
    const handles = await good.enqueueMany([{}, {}, {}])
    await Promise.all(handles.map((handle) => handle.result()))
    await (await bad.enqueue({})).result().catch(() => {})
    await good.enqueue({}, { delay: '1h' })
    const after = await node.jobs.counts()
    expect(after.completed - before.completed).toBe(3)
    expect(after.discarded - before.discarded).toBe(1)
    expect(after.scheduled - before.scheduled).toBe(1)
    expect(after.estimated).toEqual([])
  })

  it('retries a dead letter under its own id with fresh attempts', async () => {
    const { forge, attach } = setup(database)
    let broken = true
    const job = forge.job('mended', {
      retry: { attempts: 1 },
      run() {
        if (broken) throw new Error('still broken')
        return 'mended'
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await handle.result().catch(() => {})
    broken = false
    expect(await node.jobs.retry(handle.id)).toEqual({
      ids: [handle.id],
      matching: 1,
      more: false,
      skipped: [],
      refused: [],
    })
    expect(await handle.result()).toBe('mended')
    const stored = await node.jobs.get(handle.id)
    expect(stored).toMatchObject({ state: 'completed', attempt: 1 })
    expect(stored?.errors).toHaveLength(1)
    expect(await node.jobs.retry(handle.id)).toMatchObject({
      ids: [],
      skipped: [{ id: handle.id, state: 'completed' }],
    })
  })

  it('makes a retryable job run now instead of later', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('impatient', {
      retry: { attempts: 2, base: '1h', max: '1h' },
      run(_input: unknown, job) {
        if (job.attempt === 1) throw new Error('first')
        return 'second'
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.state === 'retryable', { label: 'retryable' })
    expect((await node.jobs.retry({ name: 'impatient' })).ids).toEqual([handle.id])
    expect(await handle.result()).toBe('second')
  })
})

describe('cancel', () => {
  it('ends a waiting job at once, for good', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('never', { run: () => 'ran' })
    await using node = await attach()
    const handle = await job.enqueue({}, { delay: '1h' })
    expect(await handle.cancel('not needed')).toBe(true)
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_JOB_CANCELLED' })
    expect(await node.jobs.get(handle.id)).toMatchObject({ state: 'cancelled', reason: 'not needed' })
    expect(await handle.cancel()).toBe(false)
  })

  it('aborts the handler on another node within moments', async () => {
    const here = setup(database)
    const there = setup(database)
    const aborted = deferred<unknown>()
    const job = here.forge.job('remote.cancel', { queue: 'remote', run: () => null })
    there.forge.job('remote.cancel', {
      queue: 'remote',
      run: (_input: unknown, job) =>
        new Promise((_, reject) => {
          job.signal.addEventListener('abort', () => {
            aborted.resolve(job.signal.reason)
            reject(new Error('stopped'))
          })
        }),
    })
    await using _gateway = await here.attach({ roles: ['gateway'] })
    await using node = await there.attach()
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.state === 'running', { label: 'running' })
    const asked = performance.now()
    expect(await handle.cancel('stop it')).toBe(true)
    expect(await aborted.promise).toMatchObject({ code: 'FORGE_JOB_CANCELLED' })
    // Measured at 5 to 20 ms by notification; the poll would take up to 5 s.
    expect(performance.now() - asked).toBeLessThan(2_500)
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_JOB_CANCELLED' })
  })

  it('aborts running jobs that a filter finds, from another node', async () => {
    const here = setup(database)
    const there = setup(database)
    const abortedMs: number[] = []
    const run = (_input: unknown, job: JobContext): Promise<never> =>
      new Promise((_, reject) => {
        job.signal.addEventListener('abort', () => {
          abortedMs.push(performance.now())
          reject(new Error('stopped'))
        })
      })
    const job = here.forge.job('remote.many', { queue: 'remote.many', run: () => null })
    there.forge.job('remote.many', { queue: 'remote.many', run })
    await using gateway = await here.attach({ roles: ['gateway'] })
    await using _node = await there.attach({ queues: { 'remote.many': { concurrency: 5 } } })
    const handles = await job.enqueueMany(
      Array.from({ length: 8 }, () => ({})),
      { tags: ['nightly'] },
    )
    await until(async () => (await gateway.jobs.list({ state: 'running', tag: 'nightly' })).length === 5, {
      label: 'five run',
    })
    const asked = performance.now()
    expect((await gateway.jobs.cancel({ tag: 'nightly' }, 'changed our minds')).ids).toHaveLength(8)
    await until(() => abortedMs.length === 5, { label: 'aborted' })
    // Measured at 5 to 20 ms by notification; the poll would take up to 5 s, the promise is 250 ms.
    expect(Math.max(...abortedMs) - asked).toBeLessThan(1_000)
    for (const { id } of handles)
      await until(async () => (await gateway.jobs.get(id))?.state === 'cancelled', { label: 'cancelled' })
  })

  it('completes a running job whose handler returns a value after the mark', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('stubborn', {
      run: (_input: unknown, job) =>
        new Promise((resolve) => job.signal.addEventListener('abort', () => resolve('finished anyway'))),
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.state === 'running', { label: 'running' })
    await handle.cancel()
    expect(await handle.result()).toBe('finished anyway')
  })

  it('cancels by filter, and asks for all: true before it takes everything', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('many.cancelled', { queue: 'doomed', run: () => null })
    await using node = await attach({ queues: { doomed: false } })
    await job.enqueueMany(Array.from({ length: 30 }, () => ({})))
    await expect(node.jobs.cancel({})).rejects.toMatchObject({ code: 'FORGE_FILTER_EMPTY' })
    const first = await node.jobs.cancel({ queue: 'doomed', limit: 20 })
    expect([first.ids.length, first.more]).toEqual([20, true])
    const rest = await node.jobs.cancel({ queue: 'doomed' })
    expect([rest.ids.length, rest.more]).toEqual([10, false])
  })
})

describe('progress', () => {
  it('does not keep a job from being handed in with its neighbours', async () => {
    const rig = await behindProxy(database)
    await using proxy = rig.proxy
    const job = rig.forge.job('progress.tid', { run: (_input, context) => writes(context) })
    const writes = async ({ id, progress }: { id: string; progress: (percent: number) => void }) => {
      progress(50)
      await until(async () => (await node.jobs.get(id))?.progress?.percent === 50, { label: 'written' })
      // On the same connection: by its answer the one of the progress has come.
      await job.enqueue(null, { delay: '1h' })
      return 'done'
    }
    await using node = await rig.forge.attach(null, rig.pool, { logger: rig.logger })
    const oneByOne = proxy.cutAfterBytes({
      direction: 'toServer',
      match: Buffer.from('forge_finish_jobs'),
      bytes: 0,
    })
    expect(await (await job.enqueue(null)).result()).toBe('done')
    await expect(oneByOne.happened({ deadlineMs: 1 })).rejects.toMatchObject({ code: 'FORGE_TEST_DEADLINE' })
  })

  it('is written twice a second at most, the newest last, however often it is told', async () => {
    const { forge, attach } = setup(database)
    await database.query(`
      create table progress_writes (percent int);
      create function note_progress() returns trigger language plpgsql security definer as
      $$ begin insert into public.progress_writes values ((new.progress->>'percent')::int); return null; end $$;
      create trigger note_progress after update on forge.job for each row
      when (new.progress is not null) execute function note_progress()`)
    const job = forge.job('talkative', {
      async run(_input: unknown, job) {
        for (let percent = 0; percent < 100; percent++) {
          job.progress(percent)
          await pause(10)
        }
        job.progress(100)
        await until(async () => (await writes()).includes(100), { label: 'the last is written' })
      },
    })
    const writes = async () =>
      (await database.query<{ percent: number }>('select percent from progress_writes')).map(
        ({ percent }) => percent,
      )
    await using _node = await attach()
    const since = performance.now()
    await (await job.enqueue({})).result()
    const written = await writes()
    expect(written[0]).toBe(0)
    expect(written.at(-1)).toBe(100)
    // The first at once, then one each half second.
    expect(written.length).toBeLessThanOrEqual(2 + (performance.now() - since) / 500)
    await database.query('drop trigger note_progress on forge.job')
  })

  it('is written while the job runs, cut and bounded, and gone when it is done', async () => {
    const { forge, attach } = setup(database)
    const gate = deferred<void>()
    const job = forge.job('progressing', {
      async run(_input: unknown, job) {
        for (let percent = 0; percent <= 40; percent++) job.progress(percent, `step ${percent}`)
        job.progress(250, 'x'.repeat(5_000))
        await gate.promise
      },
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.progress?.percent === 100, {
      label: 'progress',
    })
    expect((await node.jobs.get(handle.id))?.progress?.message?.length).toBe(500)
    gate.resolve()
    await handle.result()
    expect((await node.jobs.get(handle.id))?.progress).toBeNull()
  })
})
