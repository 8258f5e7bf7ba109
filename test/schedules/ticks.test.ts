import { describe, expect, it } from 'vitest'
import type { Missed, Tick } from '../../src/index.js'
import { holdSchedule } from '../../src/schedules/queries/ticks.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const options = { lease: { ms: 1_200, renewMs: 300 } }
/** Far from any tick. */
const never = '0 0 1 1 *'

const ticksOf = (name: string) =>
  database.query<{ planned: string; outcome: string; job: string | null }>(
    `select to_char(planned_at at time zone 'UTC', 'HH24:MI:SS') as planned, outcome, job
     from forge.schedule_tick where schedule = $1 order by planned_at`,
    [name],
  )

describe('a schedule of code', () => {
  it('runs its job at each tick, on time, and is told which tick it is', async () => {
    const { forge, attach } = setup(database)
    const seen: Tick[] = []
    forge.cron('second', '* * * * * *', {
      input: { a: 1 },
      queue: 'clock',
      priority: 'high',
      run: (tick, job) => void seen.push({ ...tick, queue: job.queue } as Tick),
    })
    await using node = await attach(options)
    await until(() => seen.length >= 3, { label: 'three ticks' })
    for (const tick of seen) {
      expect(tick).toMatchObject({ name: 'second', input: { a: 1 }, queue: 'clock' })
      expect(tick.scheduledFor.getTime() % 1_000).toBe(0)
      expect(tick.late).toBeGreaterThanOrEqual(0)
    }
    const times = seen.map(({ scheduledFor }) => scheduledFor.getTime())
    expect(times).toEqual(times.map((_, n) => (times[0] as number) + n * 1_000))
    const [last] = await node.crons.ticks('second', { limit: 1 })
    expect(last).toMatchObject({ outcome: 'fired', by: null })
    expect(last?.lateMs).toBeGreaterThanOrEqual(0)
    const job = await node.jobs.get(last?.job ?? '')
    expect(job).toMatchObject({ name: 'second', queue: 'clock', priority: 75, tags: ['cron:second'] })
    expect(await node.crons.get('second')).toMatchObject({
      state: 'active',
      rule: '* * * * * *',
      timezone: 'UTC',
    })
  })

  it('has a job of its own with the options of one: retry, timeout, capability and keep', async () => {
    const { forge, attach } = setup(database)
    const plain = setup(database)
    forge.cron('own', never, {
      retry: { attempts: 2, backoff: 'fixed', base: '10ms' },
      timeout: '50ms',
      capability: 'tick',
      keep: { completed: 0 },
      run: (tick, { signal }) =>
        tick.input === null
          ? null
          : new Promise((_, reject) =>
              signal.addEventListener('abort', () => reject(signal.reason as Error)),
            ),
    })
    plain.forge.cron('own', never, { capability: 'tick', run: () => null })
    await using node = await attach({ ...options, roles: ['worker', 'scheduler'], capabilities: ['tick'] })
    const done = await node.crons.trigger('own')
    await until(async () => (await node.jobs.get(done.job as string)) === null, { label: 'nothing is kept' })
    await database.query(
      `update forge.schedule set spec = jsonb_set(spec, '{input}', '"long"') where name = 'own'`,
    )
    const late = await node.crons.trigger('own')
    const job = await until(
      async () => {
        const found = await node.jobs.get(late.job as string)
        return found?.state === 'discarded' ? found : null
      },
      { label: 'given up' },
    )
    expect(job).toMatchObject({ attempt: 2, state: 'discarded' })
    expect(JSON.stringify(job.errors)).toContain('FORGE_JOB_TIMEOUT')
    await node.stop()
    // A node without the capability leaves it alone.
    await using other = await plain.attach(options)
    const left = await other.crons.trigger('own')
    await until(
      async () => (await other.jobs.explain(left.job as string)).sentence.includes(`capability 'tick'`),
      {
        label: 'nobody declares it',
      },
    )
  })

  it('makes jobs of another definition, with its own input, queue, priority and key', async () => {
    const { forge, attach } = setup(database)
    const seen: unknown[] = []
    const mail = forge.job('mail.digest', {
      concurrency: { limit: 2, by: (input: { list: string }) => input.list },
      run: (input) => void seen.push(input),
    })
    forge.cron(
      'digest',
      { every: '1s' },
      { job: mail, input: { list: 'news' }, queue: 'bulk', priority: 7, key: 'news' },
    )
    await using node = await attach(options)
    await until(() => seen.length > 0, { label: 'the first' })
    expect(seen[0]).toEqual({ list: 'news' })
    const [job] = await node.jobs.list({ tag: 'cron:digest', limit: 1 })
    expect(job).toMatchObject({ name: 'mail.digest', queue: 'bulk', priority: 7 })
  })

  it('fires a single date once, and is finished', async () => {
    const { forge, attach } = setup(database)
    const seen: Tick[] = []
    const at = new Date(Date.now() + 700)
    forge.cron('once', { at }, { run: (tick) => void seen.push(tick) })
    await using node = await attach(options)
    expect(await node.crons.preview('once')).toEqual([at])
    await until(() => seen.length === 1, { label: 'fired' })
    await until(async () => (await node.crons.get('once'))?.state === 'finished', { label: 'finished' })
    expect(seen[0]?.scheduledFor).toEqual(at)
    expect(await node.crons.preview('once')).toEqual([])
    expect(await node.crons.get('once')).toMatchObject({
      next: null,
      last: { planned: at, outcome: 'fired' },
    })
  })

  it('runs up to its jitter later than planned', async () => {
    const { forge, attach } = setup(database)
    forge.cron('spread', { every: '1s' }, { jitter: '1h', run: () => {} })
    await using node = await attach(options)
    const jobs = await until(
      async () => {
        const found = await node.jobs.list({ tag: 'cron:spread' })
        return found.length >= 2 ? found : null
      },
      { label: 'two jobs' },
    )
    for (const { state, runAt } of jobs ?? []) {
      expect(state).toBe('scheduled')
      expect(runAt.getTime()).toBeLessThan(Date.now() + 3_600_000)
    }
    expect(new Set(jobs?.map(({ runAt }) => runAt.getTime() % 1_000)).size).toBeGreaterThan(1)
  })
})

describe('ticks that nobody fired in time', () => {
  it.each<[string, Missed, number]>([
    ['none', 'none', 0],
    ['last', 'last', 1],
    ['all', 'all', 10],
    ['some', { policy: 'all', limit: 4 }, 4],
    ['recent', { policy: 'all', window: '150s' }, 3],
  ])('after ten minutes, policy %s', async (name, missed, expected) => {
    const define = () => {
      const bundle = setup(database)
      const seen: Tick[] = []
      bundle.forge.cron(`missed.${name}`, '* * * * *', { missed, run: (tick) => void seen.push(tick) })
      return { ...bundle, seen }
    }
    const before = define()
    await (await before.attach(options)).stop()
    // As it stands after ten minutes. Its minutes end 20 s ago, so that none ends while this looks.
    const [{ now }] = (await database.query<{ now: Date }>(
      `update forge.schedule set planned = true, spec = jsonb_set(spec, '{rule}',
         jsonb_build_object('cron', floor(extract(second from now() - interval '20 s')) || ' * * * * *')),
       next_at = date_trunc('second', now() - interval '20 s') - interval '9 min'
       where name = $1 returning now() as now`,
      [`missed.${name}`],
    )) as [{ now: Date }]
    const after = define()
    await using node = await after.attach(options)
    await until(
      async () => ((await node.crons.get(`missed.${name}`))?.next?.getTime() ?? 0) > now.getTime(),
      {
        label: 'looked at',
      },
    )
    const ticks = await ticksOf(`missed.${name}`)
    const counts = (outcome: string) => ticks.filter((tick) => tick.outcome === outcome).length
    expect([ticks.length, counts('fired'), counts('missed')]).toEqual([10, expected, 10 - expected])
    await until(() => after.seen.length === expected, { label: 'their jobs ran' })
    for (const tick of after.seen) expect(tick.late).toBeGreaterThan(15_000)
  })
})

describe('a tick whose predecessor is at work', () => {
  it('makes another job beside it, none, or waits with it, as overlap says', async () => {
    const { forge, attach } = setup(database)
    const running = { allow: 0, skip: 0, queue: 0 }
    const most = { allow: 0, skip: 0, queue: 0 }
    const seen: Tick[] = []
    let release: () => void = () => {}
    const gate = new Promise<void>((resolve) => (release = resolve))
    for (const overlap of ['allow', 'skip', 'queue'] as const)
      forge.cron(
        `overlap.${overlap}`,
        { every: '1s' },
        {
          overlap,
          async run(tick) {
            if (overlap === 'queue') seen.push(tick)
            running[overlap] += 1
            most[overlap] = Math.max(most[overlap], running[overlap])
            await gate
            running[overlap] -= 1
          },
        },
      )
    await using node = await attach({ ...options, concurrency: 20 })
    await until(async () => (await ticksOf('overlap.allow')).length >= 3, { label: 'three ticks' })
    expect((await ticksOf('overlap.skip')).map(({ outcome }) => outcome).slice(0, 3)).toEqual([
      'fired',
      'skipped',
      'skipped',
    ])
    expect((await ticksOf('overlap.queue')).map(({ outcome }) => outcome).slice(0, 3)).toEqual([
      'fired',
      'waiting',
      'waiting',
    ])
    expect((await node.crons.get('overlap.queue'))?.waiting).toBeGreaterThanOrEqual(2)
    await node.crons.pause('overlap.allow')
    release()
    await until(() => seen.length >= 3, { label: 'those that waited' })
    expect(most).toEqual({ allow: expect.any(Number) as number, skip: 1, queue: 1 })
    expect(most.allow).toBeGreaterThanOrEqual(3)
    const times = seen.map(({ scheduledFor }) => scheduledFor.getTime())
    expect(times).toEqual(times.map((_, n) => (times[0] as number) + n * 1_000))
  })
})

describe('what may be fired', () => {
  it('is refused under a term that does not stand', async () => {
    const { forge, attach } = setup(database)
    forge.cron('fenced', never, { run: () => {} })
    await using node = await attach(options)
    await until(() => node.cluster.leader('scheduler'), { label: 'somebody leads' })
    const fire = (term: string, at: string) =>
      database.query(`select * from forge.schedule_fire($1, $2)`, [
        term,
        JSON.stringify([
          { name: 'fenced', rev: 1, next: null, ticks: [{ at, run_at: null, missed: false }] },
        ]),
      ])
    await expect(fire('00000000-0000-4000-8000-000000000000', '2026-01-01T00:00:00Z')).rejects.toMatchObject({
      code: 'ZF010',
    })
    expect(await ticksOf('fenced')).toEqual([])
    const term = (await node.cluster.leader('scheduler'))?.term.id as string
    // By the clock of the database, whatever the leader believes.
    await fire(term, '2100-01-01T00:00:00Z')
    expect(await ticksOf('fenced')).toEqual([])
    // Twice the same tick is one.
    expect(await fire(term, '2026-01-01T00:00:00Z')).toHaveLength(1)
    expect(await fire(term, '2026-01-01T00:00:00Z')).toEqual([])
    expect(await ticksOf('fenced')).toHaveLength(1)
    expect(await node.jobs.list({ tag: 'cron:fenced' })).toHaveLength(1)
    // Nor is one put off by whoever led before.
    const hold = (by: string) => database.query(holdSchedule.text('forge'), ['fenced', 'no luck', '1', by])
    expect(await hold('00000000-0000-4000-8000-000000000000')).toEqual([])
    expect((await node.crons.get('fenced'))?.fault).toBeNull()
    expect(await hold(term)).toHaveLength(1)
  })

  it('keeps nothing else from firing when its job cannot be made, and fires when it can', async () => {
    const { forge, attach, heard } = setup(database)
    const seen: string[] = []
    forge.cron('broken', { every: '1s' }, { job: 'not.defined.yet' })
    forge.cron('sound', { every: '1s' }, { run: ({ name }) => void seen.push(name) })
    await using node = await attach(options)
    await until(() => seen.length >= 2, { label: 'the sound one fires' })
    const broken = await until(
      async () => {
        const found = await node.crons.get('broken')
        return found?.fault ? found : null
      },
      { label: 'the fault is shown' },
    )
    expect(broken).toMatchObject({ state: 'active', last: null })
    expect(broken?.fault).toContain("no job is defined as 'not.defined.yet'")
    expect(
      heard.some(({ level, message }) => level === 'error' && message.includes("'broken' cannot fire")),
    ).toBe(true)
    forge.job('not.defined.yet', { run: () => void seen.push('mended') })
    await until(() => seen.includes('mended'), { label: 'it fires after all', deadlineMs: 20_000 })
    await until(async () => (await node.crons.get('broken'))?.fault === null, { label: 'no fault is shown' })
  })

  it('is tried again soon, though nothing else is due: one that could not be made is still on time', async () => {
    const { forge, attach } = setup(database)
    await using node = await attach(options)
    await database.query(`delete from forge.schedule`)
    forge.cron('single', { at: new Date(Date.now() + 300) }, { job: 'single.job' })
    const failures = async () =>
      (
        await database.query<{ n: number }>(`select failures as n from forge.schedule where name = 'single'`)
      )[0]?.n ?? 0
    // After 1 s and 2 s more; by the poll alone it would be 10 s each time.
    await until(async () => (await failures()) >= 3, { label: 'tried three times', deadlineMs: 8_000 })
    forge.job('single.job', { run: () => null })
    await until(async () => (await ticksOf('single'))[0]?.outcome === 'fired', {
      label: 'fired',
      deadlineMs: 8_000,
    })
  })

  it('is released one by one when one of those that wait cannot be', async () => {
    const { forge, attach } = setup(database)
    let release: () => void = () => {}
    const gate = new Promise<void>((resolve) => (release = resolve))
    for (const name of ['stuck.a', 'stuck.b']) forge.cron(name, never, { overlap: 'queue', run: () => gate })
    await using node = await attach(options)
    for (const name of ['stuck.a', 'stuck.b']) {
      await node.crons.trigger(name)
      expect((await node.crons.trigger(name)).outcome).toBe('waiting')
    }
    await database.query(
      `update forge.schedule set spec = jsonb_set(spec, '{job}', '"nobody.has.it"') where name = 'stuck.a'`,
    )
    release()
    const outcomes = async (name: string) => (await ticksOf(name)).map(({ outcome }) => outcome)
    await until(async () => (await outcomes('stuck.b')).join() === 'fired,fired', { label: 'the sound one' })
    expect(await outcomes('stuck.a')).toEqual(['fired', 'waiting'])
    expect((await node.crons.get('stuck.a'))?.fault).toContain('nobody.has.it')
    await database.query(
      `update forge.schedule set spec = jsonb_set(spec, '{job}', '"stuck.a"'), held_until = null where name = 'stuck.a'`,
    )
    await until(async () => (await outcomes('stuck.a')).join() === 'fired,fired', {
      label: 'and the other, when it can be',
    })
    expect((await node.crons.get('stuck.a'))?.fault).toBeNull()
  })

  it('comes from one node of several, and from the next when that one stops, with no tick lost or doubled', async () => {
    const bundles = [setup(database), setup(database), setup(database)]
    const seen: number[] = []
    for (const { forge } of bundles)
      forge.cron(
        'relay',
        { every: '1s' },
        { run: ({ scheduledFor }) => void seen.push(scheduledFor.getTime()) },
      )
    const nodes = await Promise.all(bundles.map(({ attach }) => attach(options)))
    for (let change = 1; change <= 2; change++) {
      const count = seen.length
      await until(() => seen.length >= count + 2, { label: 'two ticks' })
      const leader = await nodes.find((node) => node)?.cluster.leader('scheduler')
      const at = nodes.findIndex(({ id }) => id === leader?.node)
      expect(at).toBeGreaterThanOrEqual(0)
      await nodes.splice(at, 1)[0]?.stop()
    }
    const count = seen.length
    await until(() => seen.length >= count + 2, { label: 'two more' })
    await nodes[0]?.stop()
    const ticks = await ticksOf('relay')
    expect(ticks.every(({ outcome }) => outcome === 'fired')).toBe(true)
    const sorted = [...seen].sort((one, other) => one - other)
    expect(sorted).toEqual(sorted.map((_, n) => (sorted[0] as number) + n * 1_000))
  })
})
