import { describe, expect, it } from 'vitest'
import type { Duration, ForgeNode, JobHandle, OnConflict } from '../../src/index.js'
import { Outbox } from '../../src/jobs/outbox.js'
import type { Row } from '../../src/jobs/rows.js'
import { deferred, ForgeError } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

interface Input {
  readonly user: string
  readonly n: number
}

interface Shape {
  readonly onConflict?: OnConflict
  readonly for?: Duration
  readonly maxWait?: Duration
}

/** A unique job whose handler waits, and counts what it was given. */
function setupUnique(name: string, shape: Shape = {}) {
  const { forge, attach, pool } = setup(database)
  const ran: Input[] = []
  const open = deferred<void>()
  const job = forge.job(name, {
    queue: name,
    unique: { by: (input) => input.user, ...shape },
    async run(input: Input) {
      ran.push(input)
      await open.promise
      return input.n
    },
  })
  return { forge, attach, pool, job, ran, open }
}

/** Enqueues on a node that runs nothing. */
const idle = { roles: ['gateway'] } as const

const brief = ({ id, created, reason }: JobHandle<unknown>) => ({ id, created, reason })
const started = (node: ForgeNode, id: string): Promise<unknown> =>
  until(async () => (await node.jobs.get(id))?.state === 'running', { label: 'it runs' })

describe('skip', () => {
  it('answers with the standing job while it waits and while it runs, and makes another when it is finished', async () => {
    const { attach, job, open } = setupUnique('skip')
    await using node = await attach()
    const first = await job.enqueue({ user: 'a', n: 1 }, { delay: '1h' })
    const same = { id: first.id, created: false, reason: 'duplicate' }
    expect(brief(first)).toEqual({ id: first.id, created: true, reason: undefined })
    expect(brief(await job.enqueue({ user: 'a', n: 2 }))).toEqual(same)
    expect((await job.enqueue({ user: 'b', n: 3 })).created).toBe(true)
    await database.query(`update forge.job set state = 2, stage = 2 where id = $1`, [first.id])
    await job.enqueue({ user: 'c', n: 0 })
    await started(node, first.id)
    expect(brief(await job.enqueue({ user: 'a', n: 4 }))).toEqual(same)
    open.resolve()
    expect(await first.result()).toBe(1)
    const next = await job.enqueue({ user: 'a', n: 5 })
    expect(next.created).toBe(true)
    expect(next.id).not.toBe(first.id)
  })

  it('frees the key of a job that was cancelled or discarded', async () => {
    const { attach, job } = setupUnique('skip.cancelled')
    await using node = await attach(idle)
    const first = await job.enqueue({ user: 'a', n: 1 })
    await node.jobs.cancel(first.id)
    expect((await job.enqueue({ user: 'a', n: 2 })).created).toBe(true)
  })

  it('with `for` holds the key for that long, finished or not, and no longer', async () => {
    const { attach, job, open } = setupUnique('skip.for', { for: '1h' })
    open.resolve()
    await using _node = await attach()
    const first = await job.enqueue({ user: 'a', n: 1 })
    expect(await first.result()).toBe(1)
    expect(brief(await job.enqueue({ user: 'a', n: 2 }))).toEqual({
      id: first.id,
      created: false,
      reason: 'duplicate',
    })
    await database.query(`update forge.job_unique set expires_at = now() where scope = 'skip.for'`)
    expect((await job.enqueue({ user: 'a', n: 3 })).created).toBe(true)
    const [row] = await database.query<{ ms: number }>(
      `select extract(epoch from expires_at - now())::float8 * 1000 as ms from forge.job_unique where scope = 'skip.for'`,
    )
    expect(row?.ms).toBeGreaterThan(3_500_000)
    expect(row?.ms).toBeLessThanOrEqual(3_600_000)
  })

  it('without `by` takes equal inputs for one, however their keys are ordered', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('skip.hash', { unique: {}, run: (_: object | undefined) => null })
    await using _node = await attach(idle)
    const first = await job.enqueue({ a: 1, b: { c: [1, 2], d: null } })
    const again = await job.enqueue({ b: { d: null, c: [1, 2] }, a: 1 })
    expect(brief(again)).toEqual({ id: first.id, created: false, reason: 'duplicate' })
    expect((await job.enqueue({ a: 1, b: { c: [2, 1], d: null } })).created).toBe(true)
    expect((await job.enqueue()).created).toBe(true)
    expect((await job.enqueue()).created).toBe(false)
  })

  it('keeps definitions apart, and takes a number or option key as the key', async () => {
    const { forge, attach } = setup(database)
    const one = forge.job('skip.one', { unique: { by: (input: { n: number }) => input.n }, run: () => null })
    const two = forge.job('skip.two', { unique: { by: () => '7' }, run: (_: { n: number }) => null })
    await using _node = await attach(idle)
    const first = await one.enqueue({ n: 7 })
    expect((await two.enqueue({ n: 7 })).created).toBe(true)
    expect((await one.enqueue({ n: 8 }, { key: '7' })).id).toBe(first.id)
    expect((await one.enqueue({ n: 8 })).created).toBe(true)
  })

  it('answers a repeated id with exists, and leaves the key to whoever has it', async () => {
    const { attach, job, open } = setupUnique('skip.id')
    open.resolve()
    await using _node = await attach()
    const id = '0190a000-0000-7000-8000-000000000001'
    const first = await job.enqueue({ user: 'a', n: 1 }, { id })
    expect(first).toMatchObject({ id, created: true })
    await first.result()
    const other = await job.enqueue({ user: 'a', n: 2 }, { delay: '1h' })
    expect(other.created).toBe(true)
    expect(brief(await job.enqueue({ user: 'a', n: 3 }, { id }))).toEqual({
      id,
      created: false,
      reason: 'exists',
    })
    // Not even of a key that nobody holds.
    expect(brief(await job.enqueue({ user: 'z', n: 3 }, { id }))).toEqual({
      id,
      created: false,
      reason: 'exists',
    })
    expect((await job.enqueue({ user: 'z', n: 4 })).created).toBe(true)
    expect((await job.enqueue({ user: 'a', n: 5 })).id).toBe(other.id)
  })
})

const content = `select input, priority, run_at, tags, state, queue from forge.job join forge.job_lane l on l.id = lane where job.id = $1`

describe('replace', () => {
  it('gives input, priority, time, queue and tags to a job that has not started', async () => {
    const { attach, job, ran, open } = setupUnique('replace', { onConflict: 'replace' })
    await using node = await attach({ queues: { later: false } })
    const first = await job.enqueue({ user: 'a', n: 1 }, { delay: '1h', tags: ['old'], priority: 'low' })
    const runAt = new Date('2031-01-01T00:00:00Z')
    const options = { runAt, priority: 90, tags: ['new'], queue: 'later' }
    const again = await job.enqueue({ user: 'a', n: 2 }, options)
    expect(brief(again)).toEqual({ id: first.id, created: false, reason: 'replaced' })
    expect((await database.query(content, [first.id]))[0]).toEqual({
      input: { user: 'a', n: 2 },
      priority: 90,
      run_at: runAt,
      tags: ['new'],
      state: 0,
      queue: 'later',
    })
    // For now: it runs, with what it was given last.
    open.resolve()
    const last = await job.enqueue({ user: 'a', n: 3 })
    expect(last.reason).toBe('replaced')
    expect(await last.result()).toBe(3)
    expect(ran).toEqual([{ user: 'a', n: 3 }])
    expect(await node.jobs.get(first.id)).toMatchObject({ queue: 'replace', state: 'completed' })
  })

  it('leaves a running job alone and says so', async () => {
    const { attach, job, open } = setupUnique('replace.running', { onConflict: 'replace' })
    await using node = await attach()
    const first = await job.enqueue({ user: 'a', n: 1 })
    await started(node, first.id)
    const running = { id: first.id, created: false, reason: 'running' }
    expect(brief(await job.enqueue({ user: 'a', n: 2 }))).toEqual(running)
    open.resolve()
    expect(await first.result()).toBe(1)
    expect((await job.enqueue({ user: 'a', n: 3 })).created).toBe(true)
  })

  it('keeps the place of a job that could run already', async () => {
    const { attach, job } = setupUnique('replace.place', { onConflict: 'replace' })
    await using _node = await attach(idle)
    const { id } = await job.enqueue({ user: 'a', n: 1 })
    const [before] = await database.query(content, [id])
    await job.enqueue({ user: 'a', n: 2 })
    const [after] = await database.query(content, [id])
    expect(after).toEqual({ ...before, input: { user: 'a', n: 2 } })
  })

  it('within `for` says duplicate of a job that is finished', async () => {
    const { attach, job, open } = setupUnique('replace.for', { onConflict: 'replace', for: '1h' })
    open.resolve()
    await using _node = await attach()
    const first = await job.enqueue({ user: 'a', n: 1 })
    await first.result()
    expect(brief(await job.enqueue({ user: 'a', n: 2 }))).toEqual({
      id: first.id,
      created: false,
      reason: 'duplicate',
    })
  })
})

describe('debounce', () => {
  const due = async (id: string): Promise<number> => {
    const [row] = await database.query<{ ms: number }>(
      `select extract(epoch from run_at - created_at)::float8 * 1000 as ms from forge.job where id = $1`,
      [id],
    )
    return row?.ms as number
  }

  it('runs once, with the last input, so long after the last call', async () => {
    const { attach, job, ran, open } = setupUnique('debounce', { onConflict: 'debounce', for: '600ms' })
    open.resolve()
    await using _node = await attach()
    const first = await job.enqueue({ user: 'a', n: 0 })
    expect(first.created).toBe(true)
    expect(await due(first.id)).toBeCloseTo(600, -2)
    for (let n = 1; n <= 5; n++) {
      const again = await job.enqueue({ user: 'a', n })
      expect(brief(again)).toEqual({ id: first.id, created: false, reason: 'debounced' })
    }
    const last = performance.now()
    expect(await first.result()).toBe(5)
    expect(performance.now() - last).toBeGreaterThan(500)
    expect(ran).toEqual([{ user: 'a', n: 5 }])
    const next = await job.enqueue({ user: 'a', n: 6 })
    expect(next).toMatchObject({ created: true })
  })

  it('waits no longer than maxWait after the first call', async () => {
    const { attach, job } = setupUnique('debounce.max', { onConflict: 'debounce', for: '1h', maxWait: '90m' })
    await using _node = await attach(idle)
    const { id } = await job.enqueue({ user: 'a', n: 0 })
    expect(Math.round((await due(id)) / 60_000)).toBe(60)
    const age = (minutes: number) =>
      database.query(`update forge.job set created_at = now() - $2 * interval '1 min' where id = $1`, [
        id,
        minutes,
      ])
    await age(20)
    await job.enqueue({ user: 'a', n: 1 })
    expect(Math.round((await due(id)) / 60_000)).toBe(80)
    await age(70)
    await job.enqueue({ user: 'a', n: 2 })
    expect(Math.round((await due(id)) / 60_000)).toBe(90)
    await age(100)
    await job.enqueue({ user: 'a', n: 3 })
    expect(await database.query('select state, input from forge.job where id = $1', [id])).toEqual([
      { state: 2, input: { user: 'a', n: 3 } },
    ])
  })

  it('says running while it runs within the time of quiet, and begins anew after it', async () => {
    const { attach, job, open } = setupUnique('debounce.run', {
      onConflict: 'debounce',
      for: '1h',
      maxWait: '50ms',
    })
    await using node = await attach()
    const first = await job.enqueue({ user: 'a', n: 1 })
    await started(node, first.id)
    const running = { id: first.id, created: false, reason: 'running' }
    expect(brief(await job.enqueue({ user: 'a', n: 2 }))).toEqual(running)
    open.resolve()
    await first.result()
    // What comes after it finished is not lost in what is left of the hour.
    expect((await job.enqueue({ user: 'a', n: 3 })).created).toBe(true)
  })
})

describe('many at once', () => {
  it('answer each in its order: the first of a key counts with skip, the last with replace', async () => {
    const skip = setupUnique('bulk.skip')
    const replace = setupUnique('bulk.replace', { onConflict: 'replace' })
    await using _one = await skip.attach(idle)
    await using _two = await replace.attach(idle)
    const inputs = [
      { user: 'a', n: 1 },
      { user: 'b', n: 2 },
      { user: 'a', n: 3 },
      { user: 'c', n: 4 },
      { user: 'a', n: 5 },
    ]
    for (const [{ job }, reason, kept] of [
      [skip, 'duplicate', 1] as const,
      [replace, 'replaced', 5] as const,
    ]) {
      const made = await job.enqueueMany(inputs)
      expect(made.map((each) => each.reason)).toEqual([undefined, undefined, reason, undefined, reason])
      expect(made[2]?.id).toBe(made[0]?.id)
      expect(made[4]?.id).toBe(made[0]?.id)
      expect(new Set(made.map(({ id }) => id)).size).toBe(3)
      const [row] = await database.query<{ input: Input }>(content, [made[0]?.id])
      expect(row?.input.n).toBe(kept)
      const again = await job.enqueueMany(inputs.slice(1, 3))
      expect(again.map(({ id }) => id)).toEqual([made[1]?.id, made[0]?.id])
      expect(again.map((each) => each.reason)).toEqual([reason, reason])
    }
  })

  it('travel beside others and get their own answers', async () => {
    const { forge, attach } = setup(database)
    const plain = forge.job('mixed.plain', { run: (_: { n: number }) => null })
    const one = forge.job('mixed.unique', {
      unique: { by: (input: { n: number }) => input.n % 10 },
      run: () => null,
    })
    await using _node = await attach(idle)
    const made = await Promise.all(
      Array.from({ length: 200 }, (_, n) => [
        plain.enqueue({ n }, n % 3 === 0 ? { tags: [`t${n}`] } : {}),
        one.enqueue({ n }),
      ]).flat(),
    )
    expect(made.filter((_, at) => at % 2 === 0).every(({ created }) => created)).toBe(true)
    const unique = made.filter((_, at) => at % 2 === 1)
    expect(unique.filter(({ created }) => created)).toHaveLength(10)
    expect(unique.map(({ id }) => id)).toEqual(unique.map((_, n) => unique[n % 10]?.id))
    const [row] = await database.query(`select count(*)::int as n, count(tags)::int as tagged from forge.job
      join forge.job_lane l on l.id = lane where name = 'mixed.plain'`)
    expect(row).toEqual({ n: 200, tagged: 67 })
  })

  it('hold up nothing else while somebody holds their key in a transaction', async () => {
    const { forge, pool, attach, job } = setupUnique('held')
    const plain = forge.job('held.plain', { run: () => null })
    await using _node = await attach(idle)
    const client = await pool.connect()
    await client.query('begin')
    const { id } = await job.enqueue({ user: 'a', n: 0 }, { tx: client })
    let settled = 0
    const waiting = [1, 2, 3].map((n) => job.enqueue({ user: 'a', n }).finally(() => settled++))
    for (let n = 0; n < 20; n++) expect((await plain.enqueue({})).created).toBe(true)
    expect(settled).toBe(0)
    await client.query('commit')
    client.release()
    const same = { id, created: false, reason: 'duplicate' }
    expect((await Promise.all(waiting)).map(brief)).toEqual([same, same, same])
  })

  it('fail together when their key stays held, and leave those of other keys alone', async () => {
    const held = new ForgeError('FORGE_LOCK_TIMEOUT')
    const calls: string[] = []
    const outbox = new Outbox((rows) => {
      const keys = rows.map(({ unique }) => unique?.key).join('')
      calls.push(keys)
      return keys.includes('x')
        ? Promise.reject(held)
        : Promise.resolve(rows.map(({ id }) => ({ id, created: true })))
    })
    const put = (key: string) => outbox.put({ id: key, unique: { scope: 's', key } } as unknown as Row)
    const ends = await Promise.allSettled(['x', 'x', 'y', 'x', 'z', 'y'].map(put))
    expect(ends.map(({ status }) => status.slice(0, 1)).join('')).toBe('rrfrff')
    // The first goes at once; the rest together, then key by key.
    expect(calls).toEqual(['x', 'xyxzy', 'xx', 'yy', 'z'])
  })

  it('are unique also beyond one statement', async () => {
    const { attach, job } = setupUnique('bulk.large')
    await using _node = await attach(idle)
    const made = await job.enqueueMany(
      Array.from({ length: 12_000 }, (_, n) => ({ user: `u${n % 7_000}`, n })),
    )
    expect(made.filter(({ created }) => created)).toHaveLength(7_000)
    expect(made[11_000]?.id).toBe(made[4_000]?.id)
  })
})

describe('races', () => {
  it('of many callers on two nodes make one job, which all answers name', async () => {
    for (const onConflict of ['skip', 'replace', 'debounce'] as const) {
      const name = `race.${onConflict}`
      const shape = { onConflict, ...(onConflict === 'debounce' ? { for: '1h' as const } : {}) }
      const [one, two] = [setupUnique(name, shape), setupUnique(name, shape)]
      await using _one = await one.attach(idle)
      await using _two = await two.attach(idle)
      for (let round = 0; round < 15; round++) {
        const calls = Array.from({ length: 20 }, (_, n) =>
          (n % 2 ? one : two).job.enqueue({ user: `r${round}`, n }),
        )
        const made = await Promise.all(calls)
        expect(new Set(made.map(({ id }) => id)).size).toBe(1)
        expect(made.filter(({ created }) => created)).toHaveLength(1)
        const rows = await database.query(
          `select job.id from forge.job join forge.job_lane l on l.id = lane where name = $1 and input ->> 'user' = $2`,
          [name, `r${round}`],
        )
        expect(rows).toEqual([{ id: made[0]?.id }])
      }
    }
  })

  it('of transactions wait for the first: its commit makes the others duplicates, its rollback frees the key', async () => {
    const { attach, job, pool } = setupUnique('race.tx')
    await using _node = await attach(idle)
    for (const end of ['commit', 'rollback'] as const) {
      const [one, two] = [await pool.connect(), await pool.connect()]
      await one.query('begin')
      await two.query('begin')
      const first = await job.enqueue({ user: end, n: 1 }, { tx: one })
      expect(first.created).toBe(true)
      const waiting = job.enqueue({ user: end, n: 2 }, { tx: two })
      await until(
        async () =>
          (
            await database.query(
              `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%job_enqueue%'
             and datname = current_database()`,
            )
          )[0],
        { label: 'the second waits for the first' },
      )
      await one.query(end)
      const second = await waiting
      await two.query('commit')
      expect(second.created).toBe(end === 'rollback')
      expect(second.id === first.id).toBe(end === 'commit')
      one.release()
      two.release()
    }
  })

  it('of bulks in opposite orders do not deadlock', async () => {
    const [one, two] = [setupUnique('race.bulk'), setupUnique('race.bulk')]
    await using _one = await one.attach(idle)
    await using _two = await two.attach(idle)
    for (let round = 0; round < 10; round++) {
      const inputs = Array.from({ length: 300 }, (_, n) => ({ user: `${round}/${n}`, n }))
      const [a, b] = await Promise.all([
        one.job.enqueueMany(inputs),
        two.job.enqueueMany([...inputs].reverse()),
      ])
      expect(a.map(({ id }) => id)).toEqual(b.map(({ id }) => id).reverse())
    }
  })

  it('between replacing and starting lose no input: it is replaced before it starts, or the answer is running', async () => {
    const { forge, attach } = setup(database)
    const ran = new Map<string, number>()
    const job = forge.job('race.start', {
      queue: 'race.start',
      unique: { by: (input: { user: string }) => input.user, onConflict: 'replace' },
      run: (input: { user: string; n: number }, { id }) => void ran.set(id, input.n),
    })
    await using _node = await attach()
    const wanted = new Map<string, number>()
    for (let round = 0; round < 60; round++) {
      for (let n = 0; n < 4; n++) {
        const made = await job.enqueue({ user: `u${round % 5}`, n: round * 10 + n })
        if (made.created || made.reason === 'replaced') wanted.set(made.id, round * 10 + n)
      }
    }
    await until(() => [...wanted.keys()].every((id) => ran.has(id)), { label: 'all ran' })
    expect([...ran].sort()).toEqual([...wanted].sort())
  })
})
