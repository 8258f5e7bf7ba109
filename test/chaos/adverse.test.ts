import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createForge, type ForgeNode, type Role } from '../../src/index.js'
import { checkHistory } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { fromDebian } from './debian.js'
import { startNode, stopNode } from './nodes.js'
import { installRecorder, readRecording } from './recorder.js'
import type { ChaosInput } from './worker.js'

/* A server, a role or a clock that is not as one would wish. */
const database = useDatabase()
const role = `chaos_${randomBytes(4).toString('hex')}`
const password = randomBytes(12).toString('hex')

beforeAll(async () => {
  await database.query(`create role ${role} login password '${password}'`)
  await database.query(`grant usage on schema forge to ${role}`)
  for (const kind of ['tables', 'sequences', 'functions'])
    await database.query(`grant all on all ${kind} in schema forge to ${role}`)
})
afterAll(async () => {
  await database.query(`drop owned by ${role}`)
  await database.query(`drop role ${role}`)
})

const asRole = (): string => {
  const url = new URL(database.url)
  ;[url.username, url.password] = [role, password]
  return url.href
}

function defineWork(forge: ReturnType<typeof createForge>) {
  return {
    double: forge.job('double', { run: (input: { n: number }) => input.n * 2 }),
    inTransaction: forge.job('in.transaction', {
      retry: { attempts: 20, base: '20ms', max: '200ms' },
      run: async (_: null, job) => {
        await job.transaction((tx) => job.complete('done', { tx }))
      },
    }),
    forever: forge.job('forever', {
      run: (_: null, job) =>
        new Promise((_resolve, reject) => {
          job.signal.addEventListener('abort', () => reject(job.signal.reason as Error))
        }),
    }),
  }
}

const check = async (node: ForgeNode, name: string): Promise<unknown> =>
  (await node.health()).checks.find((one) => one.name === name)

it('works by polling when NOTIFY fails altogether', async () => {
  // The role may not call it; the tests' own connections are a superuser's.
  await database.query('revoke execute on function pg_notify(text, text) from public')
  try {
    const [here, there] = [createForge(), createForge()]
    const [client, server] = [defineWork(here), defineWork(there)]
    const connection = { connectionString: asRole(), max: 3 }
    await using gateway = await here.attach(null, database.pool(connection), {
      roles: ['gateway'],
      logger: false,
    })
    await using worker = await there.attach(null, database.pool(connection), {
      roles: ['worker'],
      logger: false,
    })
    expect(server.double).toBeDefined()
    expect(await check(worker, 'listener')).toMatchObject({ ok: false })

    const spansMs: number[] = []
    for (let n = 0; n < 3; n++) {
      const since = performance.now()
      const handle = await client.double.enqueue({ n })
      expect(await handle.result({ timeout: '20s' })).toBe(n * 2)
      spansMs.push(performance.now() - since)
    }
    const committed = await gateway.transaction((tx) => client.inTransaction.enqueue(null, { tx }))
    expect(await committed.result({ timeout: '20s' })).toBe('done')

    const endless = await client.forever.enqueue(null)
    const state = async (): Promise<string | undefined> => (await gateway.jobs.get(endless.id))?.state
    await until(async () => (await state()) === 'running', { label: 'it runs' })
    await gateway.jobs.cancel(endless.id)
    await until(async () => (await state()) === 'cancelled', { label: 'it was cancelled' })

    const slowest = Math.max(...spansMs)
    process.stdout.write(`without NOTIFY: enqueue to result at most ${slowest.toFixed(0)} ms\n`)
    // It polls each second for work, and the other side as often for the result.
    expect(slowest).toBeLessThan(10_000)
  } finally {
    await database.query('grant execute on function pg_notify(text, text) to public')
  }
})

it('runs jobs for a role with a statement_timeout of 50 ms and a serializable default', async () => {
  const settings = { statement_timeout: `'50ms'`, default_transaction_isolation: 'serializable' }
  for (const [name, value] of Object.entries(settings))
    await database.query(`alter role ${role} in database ${database.name} set ${name} = ${value}`)
  const forge = createForge()
  const { double, inTransaction } = defineWork(forge)
  const pool = database.pool({ connectionString: asRole(), max: 4 })
  await using node = await forge.attach(null, pool, { logger: false, concurrency: 4 })
  const { rows } = await pool.query(`select current_setting('statement_timeout') as timeout,
                                            current_setting('transaction_isolation') as isolation`)
  expect(rows).toEqual([{ timeout: '50ms', isolation: 'serializable' }])

  const many = await double.enqueueMany(Array.from({ length: 300 }, (_, n) => ({ n })))
  const transactions = await inTransaction.enqueueMany(Array.from({ length: 30 }, () => null))
  await Promise.all([...many, ...transactions].map((handle) => handle.result({ timeout: '30s' })))

  // Statements of forge's own that have to wait for a lock for longer than that.
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  await blocker.query('begin; lock table forge.job in access exclusive mode')
  const waiting = double.enqueue({ n: 21 })
  await pause(400)
  await blocker.query('commit')
  await blocker.end()
  expect(await (await waiting).result({ timeout: '20s' })).toBe(42)
  expect(await node.jobs.counts()).toMatchObject({ completed: 331 + 4, discarded: 0 })
})

const faketime = fromDebian('faketime', [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1',
])

describe.skipIf(faketime === null)('with clocks that are five minutes apart', () => {
  it('starts nothing early and loses nothing', async () => {
    await installRecorder(database.query)
    const lease = { ms: 3_000, renewMs: 500 }
    const before = await database.query('select now() as at')
    const fakes = ['+5m', '-5m'].map((FAKETIME) => ({
      LD_PRELOAD: faketime as string,
      FAKETIME,
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    }))
    const orders = { produceMs: 40, delayMs: 1_500, ticks: true }
    // Whoever fires schedules has a clock that is wrong, one way or the other.
    const rolesOf = (env: object) =>
      (Object.keys(env).length > 0 ? ['worker', 'scheduler'] : ['worker']) as Role[]
    const nodes = await Promise.all(
      [{}, ...fakes].map((env) =>
        startNode(database.url, { ...orders, env, options: { roles: rolesOf(env), lease } }),
      ),
    )
    await using stack = new AsyncDisposableStack()
    for (const node of nodes) stack.use(node)
    const clocks = nodes.map(({ messages }) => (messages[0] as { wallMs: number }).wallMs)
    expect(Math.max(...clocks) - Math.min(...clocks)).toBeGreaterThan(9 * 60_000)

    const forge = createForge()
    const work = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
    await using gateway = await forge.attach(null, database.pool(), { roles: ['gateway'], logger: false })
    const enqueued: { id: string; acked: boolean }[] = []
    for (const how of ['throw', 'snooze', 'transaction', 'return'] as const)
      for (let n = 0; n < 10; n++) {
        const { id } = await work.enqueue({ ms: 5, how }, { delay: '1s' })
        enqueued.push({ id, acked: true })
      }
    await pause(2_000)
    // Whichever leads gives up; the other one's clock is wrong the other way.
    const leaderId = (await gateway.cluster.leader('scheduler'))?.node ?? ''
    await gateway.cluster.drain(leaderId)
    await until(
      async () => ![leaderId, undefined].includes((await gateway.cluster.leader('scheduler'))?.node),
      {
        label: 'the other one leads',
      },
    )
    await pause(2_000)
    const seen = await gateway.cluster.nodes()
    const off = seen.map(({ load }) => Math.round((load?.clockMs ?? 0) / 60_000) || 0).sort((a, b) => a - b)
    expect(off).toEqual([-5, 0, 0, 5])
    expect(await gateway.health()).toMatchObject({ ready: true })
    await Promise.all(nodes.map((node) => node.send({ kind: 'quiet' })))
    const left = async (): Promise<unknown> => (await database.query('select from forge.job limit 1'))[0]
    await until(async () => !(await left()), { deadlineMs: 30_000, label: 'all jobs ended' })
    expect(await Promise.all(nodes.map(stopNode))).toEqual([0, 0, 0])

    for (const { messages } of nodes)
      for (const message of messages)
        if ((message as { kind?: string }).kind === 'enqueued')
          enqueued.push(message as { id: string; acked: boolean })
    const recording = await readRecording(database.query, enqueued)
    const ids = new Set(enqueued.map(({ id }) => id))
    const verdict = checkHistory(
      recording.events.filter(({ job }) => ids.has(job)),
      { attemptsMax: 2 },
    )
    expect(verdict.ok, verdict.summary).toBe(true)
    expect(recording).toMatchObject({ deadClaims: 0, crashes: 0 })
    const [times] = await database.query<{ early: number; late_ms: number; ran: number }>(
      `select count(*) filter (where claimed_at < run_at)::int as early, count(*)::int as ran,
              (max(extract(epoch from claimed_at - run_at)) * 1000)::float8 as late_ms
       from forge.job_history where created_at > $1`,
      [before[0]?.at],
    )
    process.stdout.write(
      `clocks: ${times?.ran} delayed jobs, none early, at most ${times?.late_ms.toFixed(0)} ms late\n`,
    )
    const ticks = await database.query<{ at: number; early: boolean; outcome: string }>(
      `select extract(epoch from planned_at)::float8 as at, fired_at < planned_at as early, outcome
       from forge.schedule_tick where schedule = 'chaos.tick' order by planned_at`,
    )
    expect(ticks.length).toBeGreaterThan(4)
    expect(ticks.filter(({ early, outcome }) => early || outcome !== 'fired')).toEqual([])
    expect(ticks.filter(({ at }, n) => n > 0 && at - (ticks[n - 1]?.at ?? 0) !== 1)).toEqual([])
    expect(times).toMatchObject({ early: 0, ran: enqueued.length + ticks.length })
    expect(times?.late_ms).toBeLessThan(10_000)
  })
})
