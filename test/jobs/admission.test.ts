import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ClientSource, quoteSchema, Session } from '../../src/database/index.js'
import { Admission } from '../../src/jobs/admit.js'
import { admitJobs, type Admitted, forgetRates, nextGates } from '../../src/jobs/queries/limits.js'
import { deferred, LocalSignals, silentLogger, systemClock } from '../../src/kernel/index.js'
import { Faults, type Runtime } from '../../src/runtime/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'

const database = useDatabase()
let open: () => Session
let session: Session
const sessions: Session[] = []

beforeAll(async () => {
  const context = {
    source: new ClientSource(database.pool()),
    schema: quoteSchema('forge'),
    clock: systemClock,
  }
  open = () => {
    const made = new Session(context, { purpose: 'admission', statementMs: 10_000 })
    sessions.push(made)
    return made
  }
  session = open()
  await database.query(`insert into forge.job_lane (queue, name) values ('mail', 'send')`)
})
afterAll(() => Promise.all(sessions.map((each) => each.close())))
beforeEach(() => database.query('truncate forge.job, forge.job_limit, forge.job_rate'))

const limit = (gateClass: string, n: number, perMs: number | null = null) =>
  database.query('insert into forge.job_limit values ($1, $2, $3, true)', [gateClass, n, perMs])

/** Jobs in front of the first of these gates, the first the most due. */
const wait = (n: number, gates: string[], agoMs = 0) =>
  database.query(
    `insert into forge.job (id, lane, state, stage, priority, attempts_max, run_at, due, input, gates, gate)
     select gen_random_uuid(), (select id from forge.job_lane), 1, 1, 50, 5, at, at + interval '300 s', to_jsonb(i), $2::text[], ($2::text[])[1]
     from (select i, now() - $3::float8 * interval '1 ms' + i * interval '1 us' as at from generate_series(1, $1::int) i) as x(i, at)`,
    [n, gates, agoMs],
  )

const admit = (...gates: string[]): Promise<Admitted[]> => session.run(admitJobs, [gates])
const count = async (where: string): Promise<number> =>
  (await database.query<{ n: number }>(`select count(*)::int as n from forge.job where ${where}`))[0]?.n ?? -1

describe('the admission', () => {
  it('lets the oldest through, as many as there is room for, and says which lane has work from when on', async () => {
    await limit('c/send', 3)
    await wait(10, ['c/send'])
    const answer = await admit('c/send')
    expect(answer).toEqual([{ what: 'ready', name: '1', value: expect.any(Number) }])
    const rows = await database.query<{ n: number; due: number }>(
      'select input::int as n, extract(epoch from due)::float8 as due from forge.job where state = 2 order by due, id',
    )
    expect(rows.map(({ n }) => n)).toEqual([1, 2, 3])
    expect(answer[0]?.value).toBe(rows[0]?.due)
    expect(await admit('c/send')).toEqual([])
  })

  it.each(['state = 4', 'state = 0'])(
    'counts whoever holds a place, and nobody who was put off (%s)',
    async (off) => {
      await limit('c/send', 2)
      await wait(6, ['c/send'])
      await admit('c/send')
      await database.query(
        `update forge.job set state = 3, token = id, node = id, epoch = id where state = 2 and input = '1'`,
      )
      expect(await admit('c/send')).toEqual([])
      await database.query(`update forge.job set ${off}, stage = 0 where state = 2`)
      await admit('c/send')
      expect(await count('state in (2, 3)')).toBe(2)
      await database.query('delete from forge.job where state = 3')
      await admit('c/send')
      expect(await count('state = 2')).toBe(2)
    },
  )

  it('goes through all gates of a job in one call, and holds the earlier places at the later gates', async () => {
    await limit('c/send', 5)
    await limit('r/send', 3, 60_000)
    await limit('q/mail', 2)
    await wait(9, ['c/send=a', 'r/send=a', 'q/mail'])
    const answer = await admit('c/send=a')
    expect(answer.map(({ what, name }) => [what, name])).toEqual([
      ['later', 'r/send=a'],
      ['ready', '1'],
    ])
    expect(answer[0]?.value).toBeGreaterThan(50_000)
    expect(answer[0]?.value).toBeLessThanOrEqual(60_000)
    const at = await database.query(
      'select coalesce(gate, state::text) as at, count(*)::int as n from forge.job group by 1 order by 1',
    )
    expect(Object.fromEntries(at.map(({ at, n }) => [at, n]))).toEqual({
      '2': 2,
      'c/send=a': 4,
      'q/mail': 1,
      'r/send=a': 2,
    })
  })

  it('puts who comes from another gate behind those that stand there, and gives back the own place in the claim', async () => {
    await limit('c/send', 1)
    await limit('q/mail', 1)
    await wait(2, ['c/send=hog', 'q/mail'], 60_000)
    await admit('c/send=hog')
    await wait(1, ['c/send=new', 'q/mail'])
    await admit('c/send=new')
    await database.query('delete from forge.job where state = 2')
    await admit('c/send=hog', 'q/mail')
    expect(await count(`state = 2 and gates[1] = 'c/send=new'`)).toBe(1)
    await database.query('delete from forge.job where state = 2')
    await admit('q/mail')
    expect(await count(`state = 2 and gates[1] = 'c/send=hog' and due = run_at + interval '300 s'`)).toBe(1)
  })

  it('lets all through a gate whose limit is gone, in bounded steps that say there is more', async () => {
    await wait(1_500, ['c/gone=1'])
    expect(await admit('c/gone=1')).toContainEqual({ what: 'more', name: 'c/gone=1', value: null })
    expect(await count('state = 2')).toBe(1_000)
    await admit('c/gone=1')
    expect(await count('state = 2')).toBe(1_500)
  })

  it('tells classes apart whose names hold slashes', async () => {
    await limit('c/a', 1)
    await limit('c/a/b', 2)
    await wait(4, ['c/a=b=c/d'])
    await wait(4, ['c/a/b=c'])
    await admit('c/a=b=c/d', 'c/a/b=c')
    expect(await count(`state = 2 and gates[1] = 'c/a=b=c/d'`)).toBe(1)
    expect(await count(`state = 2 and gates[1] = 'c/a/b=c'`)).toBe(2)
  })

  it('waits for one that is under way at the same gate, and then sees what it did', async () => {
    await limit('c/send', 3)
    await wait(10, ['c/send'])
    const first = await database.pool({ max: 1 }).connect()
    try {
      await first.query('begin')
      await first.query(`select forge.job_admit(array['c/send'])`)
      const second = admit('c/send')
      const waiting = `select from pg_locks where locktype = 'advisory' and not granted
                       and database = (select oid from pg_database where datname = current_database())`
      await until(async () => (await database.query(waiting)).length === 1, { label: 'the second waits' })
      await first.query('commit')
      expect(await second).toEqual([])
    } finally {
      first.release(true)
    }
    expect(await count('state = 2')).toBe(3)
  })

  it('is exact when many do it at once', async () => {
    await limit('c/send', 7)
    await limit('r/send', 11, 60_000)
    await wait(300, ['c/send=a'])
    await wait(300, ['r/send=a'])
    const racers = [session, ...Array.from({ length: 7 }, open)]
    await Promise.all(
      racers.flatMap((each) => [1, 2, 3].map(() => each.run(admitJobs, [['r/send=a', 'c/send=a']]))),
    )
    expect(await count(`state = 2 and gates[1] = 'c/send=a'`)).toBe(7)
    expect(await count(`state = 2 and gates[1] = 'r/send=a'`)).toBe(11)
  })

  it('forgets what no window reaches any more', async () => {
    await limit('r/send', 1, 50)
    for (let round = 0; round < 5; round++) {
      await wait(1, ['r/send=a'])
      await until(async () => (await admit('r/send=a')).some(({ what }) => what === 'ready'), {
        label: 'it passes',
      })
    }
    const kept = () => database.query('select from forge.job_rate')
    expect((await kept()).length).toBeLessThanOrEqual(2)
    await until(async () => (await session.run(forgetRates)) && (await kept()).length === 0, {
      label: 'all is old',
    })
  })

  it('never reads the whole table of jobs, whatever was known of it when it was planned', async () => {
    const client = database.pool({ max: 1 })
    const reads = async () => {
      await client.query('select pg_stat_force_next_flush()')
      const { rows } = await client.query<{ n: string }>(
        `select seq_scan as n from pg_stat_xact_user_tables where schemaname = 'forge' and relname in ('job', 'job_rate')
         order by relname`,
      )
      return rows.map(({ n }) => Number(n))
    }
    await limit('c/send', 1_000)
    await limit('r/send', 1_000, 60_000)
    await limit('q/mail', 1_000)
    await client.query('analyze forge.job')
    await client.query(`select forge.job_admit(array['c/send=0', 'r/send=0', 'q/mail'])`)
    await wait(5_000, ['c/send=0', 'r/send=0', 'q/mail'])
    await client.query('begin')
    await client.query(`select forge.job_admit(array['c/send=0', 'r/send=0', 'q/mail'])`)
    expect(await reads()).toEqual([0, 0])
    await client.query('select count(*) from forge.job where crashes = 9')
    expect(await reads()).toEqual([1, 0])
    await client.query('commit')
    expect(await count('state = 2')).toBe(1_000)
  })
})

describe('the walk over the gates', () => {
  it('visits each gate once, however many wait there, and knows the room of each', async () => {
    await limit('c/send', 1)
    await limit('r/send', 1, 60_000)
    await wait(2_000, ['c/send=a'])
    await wait(2, ['r/send=b'])
    await wait(2, ['c/send=c'])
    await admit('c/send=a', 'r/send=b')
    const all = await session.run(nextGates, ['', 10])
    expect(all.map(({ gate, free }) => [gate, free])).toEqual([
      ['c/send=a', 0],
      ['c/send=c', 1],
      ['r/send=b', 0],
    ])
    expect(all[2]?.wait_ms).toBeGreaterThan(1_000)
    expect((await session.run(nextGates, ['c/send=a', 1])).map(({ gate }) => gate)).toEqual(['c/send=c'])
  })
})

describe('requests', () => {
  function admission(answers: (gates: readonly string[]) => Promise<Admitted[]>) {
    const signals = new LocalSignals()
    const ready: string[] = []
    signals.subscribe('jobs.ready', (keys) => ready.push(...(keys ?? [])))
    const calls: string[][] = []
    const run = (_: unknown, [gates]: [string[]]): Promise<Admitted[]> => {
      calls.push(gates)
      return answers(gates)
    }
    const runtime = {
      db: { control: { run } },
      clock: systemClock,
      faults: new Faults(systemClock, silentLogger),
      signals,
    } as unknown as Runtime
    return { admission: new Admission(runtime), calls, ready }
  }

  it('go at once, and together while one is under way; nothing is asked twice', async () => {
    const first = deferred<Admitted[]>()
    const {
      admission: under,
      calls,
      ready,
    } = admission((gates) =>
      gates.includes('c/a') ? first.promise : Promise.resolve([{ what: 'ready', name: '1', value: 1 }]),
    )
    under.request(['c/a'])
    for (const gate of ['c/b', 'c/c', 'c/b']) under.request([gate])
    under.request(null)
    expect(calls).toEqual([['c/a']])
    first.resolve([])
    await until(() => calls.length === 2, { label: 'the others went' })
    expect(calls[1]).toEqual(['c/b', 'c/c'])
    await until(() => ready.length === 1, { label: 'the lane is hinted' })
    await under.stop()
    under.request(['c/d'])
    expect(calls).toHaveLength(2)
  })

  it('are repeated when the connection failed, and again when a rate gate opens', async () => {
    const answers: (Admitted[] | Error)[] = [
      new Error('away'),
      [{ what: 'later', name: 'r/a', value: 30 }],
      [],
    ]
    const { admission: under, calls } = admission(() => {
      const next = answers[calls.length - 1] ?? []
      return next instanceof Error ? Promise.reject(next) : Promise.resolve(next)
    })
    under.request(['r/a'])
    await until(() => calls.length === 3, { label: 'it was asked again' })
    expect(calls).toEqual([['r/a'], ['r/a'], ['r/a']])
    await under.stop()
  })

  it('travel in bounded calls', async () => {
    const { admission: under, calls } = admission(() => Promise.resolve([]))
    under.request(Array.from({ length: 150 }, (_, i) => `c/${i}`))
    await until(() => calls.length === 3, { label: 'all went' })
    expect(calls.map((gates) => gates.length)).toEqual([64, 64, 22])
    await under.stop()
  })
})
