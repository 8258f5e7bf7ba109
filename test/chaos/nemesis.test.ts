import { writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type EmbeddedPostgres, startEmbedded } from '../../src/embedded/index.js'
import { type Proxy, startProxy } from '../../src/testing/index.js'
import { until } from '../support/until.js'
import { randomFrom } from '../testing/random.js'
import { Clients } from './clients.js'
import { addressOf, Fleet } from './fleet.js'
import { judgeStorm } from './judge.js'
import { chaosSeed, planStorm, playStorm } from './nemesis.js'
import { long } from './nodes.js'
import { installRecorder } from './recorder.js'

const seed = chaosSeed()
const [workers, totalMs] = long ? [5, 600_000] : [4, 15_000]
const lease = { ms: 2_000, renewMs: 400 }

/* A server of its own, since it is stopped, and durable: what was acknowledged must be there afterwards. */
let server: EmbeddedPostgres
let pool: pg.Pool
let proxy: Proxy
const query = async <Row extends object>(sql: string, values?: readonly unknown[]): Promise<Row[]> =>
  (await pool.query(sql, values as unknown[])).rows as Row[]

beforeAll(async () => {
  server = await startEmbedded({ keep: false, durable: true, dataDir: `/tmp/forge-nemesis-${process.pid}` })
  pool = new pg.Pool({ connectionString: server.url, max: 3, connectionTimeoutMillis: 5_000 })
  pool.on('error', () => {})
  proxy = await startProxy({ target: addressOf(server.url) })
})
afterAll(async () => {
  await proxy.stop()
  await pool.end()
  await server[Symbol.asyncDispose]()
})

const terminateAll = (): Promise<unknown> =>
  query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`,
  )

it('plans the same storm from the same seed, and another from another', () => {
  const storm = { seed, workers, totalMs: 60_000, leaseMs: lease.ms }
  const [first, second] = [planStorm(storm), planStorm(storm)]
  expect(second).toEqual(first)
  expect(planStorm({ ...storm, seed: seed + 1 })).not.toEqual(first)
  // Of each kind, somewhere in ten minutes.
  const kinds = new Set(planStorm({ ...storm, totalMs: 600_000 }).map(({ kind }) => kind))
  expect([...kinds].sort()).toEqual(['cut', 'hole', 'kill', 'outage', 'pause', 'slow', 'tear', 'terminate'])
})

it(
  `keeps every promise in a storm of random faults (FORGE_SEED=${seed})`,
  { timeout: totalMs + 240_000 },
  async () => {
    const faults = planStorm({ seed, workers, totalMs, leaseMs: lease.ms })
    process.stdout.write(`nemesis: FORGE_SEED=${seed}, ${faults.length} faults in ${totalMs} ms\n`)
    const clientPool = new pg.Pool({
      connectionString: proxy.url(server.url),
      max: 5,
      connectionTimeoutMillis: 5_000,
    })
    clientPool.on('error', () => {})
    const clients = await Clients.attach(clientPool, randomFrom(seed + 1))
    await installRecorder(query)
    const options = { roles: ['worker'], lease, startTimeout: '60s' } as const
    await using fleet = await Fleet.start({ url: server.url, size: workers, options })

    clients.start({ everyMs: 25 })
    await playStorm(faults, { fleet, clients: proxy, server, terminateAll })
    const calm = performance.now()
    await clients.stop()
    await clientPool.end()
    // A claim whose answer was lost is taken back a quarter of a minute later.
    const left = async (): Promise<number> =>
      (await query<{ n: number }>('select count(*)::int as n from forge.job'))[0]?.n ?? -1
    await until(async () => (await left()) === 0, { deadlineMs: 90_000, label: 'all jobs ended' }).catch(
      () => {},
    )
    const drainMs = performance.now() - calm
    const codes = await fleet.stop()

    const verdict = await judgeStorm(query, clients)
    process.stdout.write(`nemesis: drained ${drainMs.toFixed(0)} ms after the storm\n${verdict.summary}\n`)
    const hint = (): string => {
      const file = path.join(tmpdir(), `forge-nemesis-${seed}.jsonl`)
      writeFileSync(file, [...faults, ...verdict.events].map((one) => JSON.stringify(one)).join('\n'))
      return `FORGE_SEED=${seed} replays it, the history is in ${file}\n${verdict.summary}`
    }
    expect(verdict.findings, verdict.findings.length > 0 ? hint() : '').toEqual([])
    // A storm in which nothing happened proves nothing. Measured at 300 to 500 in 15 s.
    const acked = clients.told.filter(({ fate }) => fate === 'acked')
    expect(acked.length).toBeGreaterThan(60)
    const kinds = new Set(verdict.events.map(({ kind }) => kind))
    expect([...kinds].sort()).toEqual(['claimed', 'effect', 'enqueued', 'finalized', 'released', 'terminal'])
    expect(codes).toEqual(Array.from({ length: workers }, () => 0))
  },
)
