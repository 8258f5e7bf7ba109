import { describe, expect, it } from 'vitest'
import { deferred } from '../../src/kernel/index.js'
import { startProxy } from '../../src/testing/index.js'
import { addressOf } from '../chaos/fleet.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const inputs = (n: number): { n: number }[] => Array.from({ length: n }, (_, index) => ({ n: index }))

describe('claiming ahead', () => {
  it('drains a queue of trivial jobs completely, each once, and forgets its claims', async () => {
    const { forge, attach } = setup(database)
    const seen = new Map<number, number>()
    const job = forge.job('ahead.trivial', {
      queue: 'ahead.trivial',
      run: ({ n }: { n: number }) => void seen.set(n, (seen.get(n) ?? 0) + 1),
    })
    await using node = await attach()
    await job.enqueueMany(inputs(3_000))
    await until(async () => (await node.jobs.counts()).completed >= 3_000, { label: 'drained' })
    expect(seen.size).toBe(3_000)
    expect([...seen.values()].every((times) => times === 1)).toBe(true)
    // The last claims go with the next look.
    await until(async () => (await database.query('select from forge.job_claim')).length === 0, {
      label: 'claims are forgotten',
      deadlineMs: 15_000,
    })
  })

  it('takes no slow job that cannot start soon, so that another node can have it', async () => {
    const { forge, attach } = setup(database)
    const end = deferred<void>()
    const job = forge.job('ahead.slow', { queue: 'ahead.slow', run: () => end.promise })
    await using _node = await attach({ queues: { 'ahead.slow': { concurrency: 2 } } })
    await job.enqueueMany(inputs(20))
    const running = (): Promise<unknown[]> =>
      database.query(
        `select from forge.job_running r join forge.job_lane l on l.id = r.lane where l.queue = 'ahead.slow'`,
      )
    await until(async () => (await running()).length > 0, { label: 'claimed' })
    expect((await running()).length).toBe(2)
    end.resolve()
  })

  it('takes no more at a time than 16 MB of inputs', async () => {
    const { forge, attach } = setup(database)
    let started = 0
    const job = forge.job('ahead.large', { queue: 'ahead.large', run: () => void (started += 1) })
    await using node = await attach()
    await node.queues.pause('ahead.large')
    await database.query(`
      create table claim_size (n int);
      create function note_claim() returns trigger language plpgsql security definer as
        $$ begin insert into public.claim_size values (cardinality(new.ids)); return null; end $$;
      create trigger note_claim after insert on forge.job_claim for each row execute function public.note_claim()`)
    const text = 'x'.repeat(20_000)
    for (let n = 0; n < 5; n++) await job.enqueueMany(Array.from({ length: 1_000 }, () => ({ text })))
    await node.queues.resume('ahead.large')
    await until(() => started === 5_000, { label: 'all have run', deadlineMs: 30_000 })
    const [largest] = await database.query<{ n: number }>('select max(n) as n from claim_size')
    // Its slots come on top. Without the bound it would be 1,000.
    expect(largest?.n).toBeGreaterThan(500)
    expect(largest?.n).toBeLessThanOrEqual(16e6 / 20_000 + 10)
    await database.query('drop trigger note_claim on forge.job_claim')
  })

  it('hands back what waited too long for its start', async () => {
    const { forge, attach } = setup(database)
    const end = deferred<void>()
    let quick = true
    const job = forge.job('ahead.stuck', {
      queue: 'ahead.stuck',
      run: () => (quick ? undefined : end.promise),
    })
    await using _node = await attach({ queues: { 'ahead.stuck': { concurrency: 1 } } })
    for (const { result } of await job.enqueueMany(inputs(50))) await result()
    // Claimed ahead, since these jobs are quick: until now.
    quick = false
    await job.enqueueMany(inputs(50))
    const running = (): Promise<{ attempt: number }[]> =>
      database.query(
        `select r.attempt from forge.job_running r join forge.job_lane l on l.id = r.lane where l.queue = 'ahead.stuck'`,
      )
    await until(async () => (await running()).length > 1, { label: 'claimed ahead' })
    await until(async () => (await running()).length === 1, { label: 'handed back', deadlineMs: 15_000 })
    const [rest] = await database.query<{ tried: number }>(
      `select max(attempt)::int as tried from forge.job j join forge.job_lane l on l.id = j.lane
       where l.queue = 'ahead.stuck' and j.state = 2`,
    )
    expect(rest?.tried).toBe(0)
    end.resolve()
  })

  it('starts a more urgent job under a full queue soon', async () => {
    const { forge, attach } = setup(database)
    const order: string[] = []
    const job = forge.job('ahead.urgent', {
      queue: 'ahead.urgent',
      async run({ kind }: { kind: string }) {
        order.push(kind)
        if (kind === 'plain') await pause(2)
        return performance.now()
      },
    })
    await using _node = await attach()
    await job.enqueueMany(Array.from({ length: 6_000 }, () => ({ kind: 'plain' })))
    await until(() => order.length > 500, { label: 'under way' })
    const startedMs: number[] = []
    for (let n = 0; n < 7; n++) {
      const since = performance.now()
      const urgent = await job.enqueue({ kind: 'urgent' }, { priority: 'critical' })
      startedMs.push((await urgent.result()) - since)
    }
    expect(order.length).toBeLessThan(6_000)
    startedMs.sort((a, b) => a - b)
    // Measured: 14 to 25 ms.
    expect(startedMs[3]).toBeLessThanOrEqual(100)
  })
})

describe('a queue of many names', () => {
  it('is worked off completely, the urgent first', async () => {
    const { forge, attach } = setup(database)
    const order: string[] = []
    const names = Array.from({ length: 80 }, (_, index) => `many.${index}`)
    const jobs = names.map((name) => forge.job(name, { queue: 'many', run: () => void order.push(name) }))
    const first = await attach({ roles: ['gateway'] })
    await Promise.all(jobs.map((job) => job.enqueueMany(inputs(30))))
    await jobs.at(-1)?.enqueue({}, { priority: 'critical' })
    await first.stop()
    await using _node = await attach({ queues: { many: { concurrency: 1 } } })
    await until(() => order.length === 80 * 30 + 1, { label: 'all of them ran' })
    // The first claim reads all of them.
    expect(order.indexOf('many.79')).toBeLessThan(5)
    for (const name of names.slice(0, -1)) expect(order.filter((each) => each === name)).toHaveLength(30)
    await until(async () => (await database.query('select from forge.job where state = 3')).length === 0, {
      label: 'nothing runs',
    })
  })
})

describe('priority', () => {
  it('is worth time: what waits ten minutes at 0 goes before what comes now at 100', async () => {
    const { forge, attach } = setup(database)
    const order: string[] = []
    const job = forge.job('aging', { queue: 'aging', run: (name: string) => void order.push(name) })
    const gateway = await attach({ roles: ['gateway'] })
    const ago = (minutes: number) => new Date(Date.now() - minutes * 60_000)
    await job.enqueue('critical, now', { priority: 'critical' })
    await job.enqueue('background, for 9 minutes', { priority: 'background', runAt: ago(9) })
    await job.enqueueMany(['background, for 11 minutes'], { priority: 'background', runAt: ago(11) })
    await gateway.stop()
    await using _node = await attach({ queues: { aging: { concurrency: 1 } } })
    await until(() => order.length === 3, { label: 'all ran' })
    expect(order).toEqual(['background, for 11 minutes', 'critical, now', 'background, for 9 minutes'])
  })
})

describe('jobs that lost their process twice', () => {
  it('run one at a time in a process, beside others', async () => {
    const { forge, attach } = setup(database)
    const ends = [deferred<void>(), deferred<void>()]
    const begun: string[] = []
    const job = forge.job('suspects', {
      queue: 'suspects',
      run: (kind: 'suspect' | 'sound') => {
        begun.push(kind)
        return kind === 'suspect' ? ends[begun.filter((each) => each === kind).length - 1]?.promise : null
      },
    })
    const gateway = await attach({ roles: ['gateway'] })
    await job.enqueueMany(['suspect', 'suspect'])
    await database.query(`update forge.job set crashes = 2`)
    await job.enqueue('sound')
    await gateway.stop()
    await using _node = await attach({ queues: { suspects: { concurrency: 5 } } })
    await until(() => begun.length === 2, { label: 'a suspect and the sound one' })
    // Others go by.
    await (await job.enqueue('sound')).result()
    expect(begun.filter((kind) => kind === 'suspect')).toHaveLength(1)
    ends[0]?.resolve()
    await until(() => begun.filter((kind) => kind === 'suspect').length === 2, { label: 'the next one' })
    ends[1]?.resolve()
  })
})

describe('a job that lost its process twice, under a full queue', () => {
  it('takes the next slot, although none is ever free', async () => {
    const { forge, attach } = setup(database)
    const begun: string[] = []
    const job = forge.job('crowded', {
      queue: 'crowded',
      async run(kind: 'suspect' | 'sound') {
        begun.push(kind)
        await pause(20)
      },
    })
    // More than are worked off until the next look, which finds it.
    const total = 2_000
    await using node = await attach({ queues: { crowded: { concurrency: 2 } } })
    await job.enqueueMany(Array.from({ length: total }, () => 'sound' as const))
    await until(() => begun.length > 0, { label: 'they run' })
    // The least urgent of all, so that it is still there.
    const { id } = await job.enqueue('suspect', { priority: 'background' })
    await database.query(`update forge.job set crashes = 2 where id = $1`, [id])
    await until(() => begun.includes('suspect'), { label: 'the suspect began', deadlineMs: 15_000 })
    expect(begun.length).toBeLessThan(total - 200)
    await node.jobs.cancel({ queue: 'crowded' })
  })
})

describe('a claim of several names', () => {
  it('goes on behind what others are taking', async () => {
    const { forge, attach } = setup(database)
    const jobs = ['passed.a', 'passed.b'].map((name) => forge.job(name, { queue: 'passed', run: () => null }))
    const first = await attach({ roles: ['gateway'] })
    await Promise.all(jobs.map((job) => job.enqueueMany(inputs(10))))
    await first.stop()
    const other = await database.pool({ max: 1 }).connect()
    await other.query('begin')
    await other.query(`select from forge.job where state = 2 order by due limit 12 for update`)
    await using node = await attach({ queues: { passed: { concurrency: 1 } } })
    // Otherwise found by the next look, after 5 s.
    await until(async () => (await node.jobs.counts()).completed >= 8, { label: 'done', deadlineMs: 3_000 })
    await other.query('rollback')
    other.release()
  })
})

describe('queues of one process', () => {
  it('share it by weight', async () => {
    const { forge, attach } = setup(database)
    const starts: string[] = []
    const define = (queue: string) => forge.job(queue, { queue, run: () => void starts.push(queue) })
    const [heavy, light] = [define('weight.heavy'), define('weight.light')]
    const first = await attach({ roles: ['gateway'] })
    for (const each of [heavy, light]) await each.enqueueMany(inputs(8_000))
    await first.stop()
    await using _node = await attach({
      queues: {
        'weight.heavy': { weight: 9, concurrency: 10 },
        'weight.light': { weight: 1, concurrency: 10 },
      },
    })
    await until(() => starts.length > 8_000, { label: 'half of them' })
    const part = starts.slice(2_000, 6_000)
    expect(part.filter((queue) => queue === 'weight.heavy').length).toBeGreaterThan(2_400)
  })

  it('start nothing of a queue that was paused from another node, from the moment of the pause', async () => {
    await using proxy = await startProxy({ target: addressOf(database.url) })
    const { forge, attach, pool } = setup(database, { connectionString: proxy.url(database.url) })
    let ran = 0
    const job = forge.job('pause.exact', {
      queue: 'pause.exact',
      run: async () => {
        ran += 1
        await pause(1)
      },
    })
    await using worker = await attach()
    const other = setup(database)
    await using gateway = await other.attach({ roles: ['gateway'] })
    await job.enqueueMany(inputs(3_000))
    await until(() => ran > 300, { label: 'under way' })
    // Nobody tells the worker: its claims themselves must find out.
    proxy.blackhole({ only: ({ applicationName }) => applicationName === 'forge:listen' })
    await gateway.queues.pause('pause.exact', { by: 'a test' })
    const { rows } = await pool.query<{ at: Date }>('select clock_timestamp() as at')
    const running = `select from forge.job_running r join forge.job_lane l on l.id = r.lane where l.queue = 'pause.exact'`
    await until(async () => (await database.query(running)).length === 0, {
      label: 'what ran is done, the rest is back',
    })
    const late = await database.query(
      `select from forge.job_history h join forge.job_lane l on l.id = h.lane where l.queue = 'pause.exact' and h.claimed_at > $1`,
      [rows[0]?.at],
    )
    expect(late).toHaveLength(0)
    expect(ran).toBeLessThan(3_000)
    await worker.queues.resume('pause.exact')
    await until(() => ran === 3_000, { label: 'resumed', deadlineMs: 20_000 })
  })
})

describe('a handler', () => {
  it('gets a large input, which is read when it starts', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('input.large', { run: ({ text }: { text: string }) => text.length })
    await using _node = await attach()
    // Random, since PostgreSQL would compress the rest below the limit.
    const text = Array.from({ length: 20_000 }, () => Math.random().toString(36).slice(2, 12)).join('')
    expect(await (await job.enqueue({ text })).result()).toBe(text.length)
  })

  it('that ignores its signal keeps its slot, and health says so until it settles', async () => {
    const { forge, attach } = setup(database)
    const end = deferred<void>()
    const started: string[] = []
    const job = forge.job('debt', {
      timeout: '50ms',
      retry: { attempts: 1 },
      queue: 'debt',
      run: ({ kind }: { kind: 'deaf' | 'next' }) => {
        started.push(kind)
        return kind === 'deaf' ? end.promise : null
      },
    })
    await using node = await attach({ queues: { debt: { concurrency: 1 } } })
    const handlers = async () => (await node.health()).checks.find(({ name }) => name === 'handlers')
    expect(await handlers()).toEqual({ name: 'handlers', ok: true, detail: 'all settle' })
    const since = performance.now()
    const handle = await job.enqueue({ kind: 'deaf' })
    const next = await job.enqueue({ kind: 'next' })
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_JOB_DISCARDED' })
    // Five seconds of grace after the abort; then its job goes on without it.
    expect(performance.now() - since).toBeGreaterThan(5_000)
    expect(await handlers()).toMatchObject({
      ok: false,
      detail: expect.stringContaining('1 ignore') as string,
    })
    expect(started).toEqual(['deaf'])
    expect((await node.jobs.get(next.id))?.state).not.toBe('completed')
    end.resolve()
    await next.result()
    await until(async () => (await handlers())?.ok, { label: 'it settled' })
  })

  it('that returns something which throws wherever it is touched fails its attempt, and no more', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('result.revoked', {
      retry: { attempts: 1 },
      run() {
        const { proxy, revoke } = Proxy.revocable({}, {})
        revoke()
        return proxy
      },
    })
    await using node = await attach()
    const { id } = await job.enqueue({})
    await until(async () => ['completed', 'discarded'].includes((await node.jobs.get(id))?.state ?? ''), {
      label: 'its end is written',
    })
  })

  it('that completes twice in a transaction which falls runs again, and is not left running', async () => {
    const { forge, attach } = setup(database)
    let runs = 0
    const job = forge.job('complete.twice', {
      retry: { base: '10ms' },
      run: (_input: unknown, job) =>
        ++runs > 1
          ? 'done'
          : job.transaction(async (tx) => {
              await job.complete('first', { tx })
              await job.complete('second', { tx })
            }),
    })
    await using _node = await attach()
    expect(await (await job.enqueue({})).result()).toBe('done')
  })
})
