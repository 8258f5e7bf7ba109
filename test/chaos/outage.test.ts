import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type EmbeddedPostgres, startEmbedded } from '../../src/embedded/index.js'
import { checkHistory, type NodeProcess } from '../../src/testing/index.js'
import { until } from '../support/until.js'
import { isAbout, long, startNode, stopNode } from './nodes.js'
import { installRecorder, readRecording } from './recorder.js'

/* A server of its own, durable: what was acknowledged before an immediate stop must be there after it. */
let server: EmbeddedPostgres
let pool: pg.Pool
const processes: NodeProcess[] = []
const query = async <Row extends object>(sql: string, values?: readonly unknown[]): Promise<Row[]> =>
  (await pool.query(sql, values as unknown[])).rows as Row[]

beforeAll(async () => {
  server = await startEmbedded({ keep: false, durable: true, dataDir: `/tmp/forge-outage-${process.pid}` })
  pool = new pg.Pool({ connectionString: server.url, max: 3, connectionTimeoutMillis: 5_000 })
  pool.on('error', () => {})
})
afterAll(async () => {
  for (const one of processes) await one[Symbol.asyncDispose]()
  await pool.end()
  await server[Symbol.asyncDispose]()
})

const outagesMs = long ? [1_000, 8_000, 60_000] : [1_000, 8_000]

it(`lives through PostgreSQL stopping for ${outagesMs.join(', ')} ms`, { timeout: 400_000 }, async () => {
  const options = { roles: ['worker'], startTimeout: '60s' } as const
  // The first brings the schema; the recorder goes in before the others work.
  processes.push(await startNode(server.url, { options }))
  await installRecorder(query)
  for (const produceMs of [50, 50, 50]) processes.push(await startNode(server.url, { options, produceMs }))

  for (const outageMs of outagesMs) await playOutage(outageMs)

  const codes = await Promise.all(processes.map(stopNode))
  expect(codes).toEqual([0, 0, 0, 0])
  const enqueued = processes.flatMap((node) =>
    node.messages.filter((m) => (m as { kind?: string }).kind === 'enqueued'),
  ) as { id: string; acked: boolean }[]
  const left = await query('select id from forge.job')
  const recording = await readRecording(query, enqueued)
  // The producers stop with jobs on their way: those are neither lost nor done.
  const unfinished = new Set(left.map((row) => (row as { id: string }).id))
  const told = recording.events.filter((event) => !(event.kind === 'enqueued' && unfinished.has(event.job)))
  const verdict = checkHistory(told, { attemptsMax: 20 })
  process.stdout.write(
    `outages: ${enqueued.length} enqueues, ${unfinished.size} unfinished; ${verdict.summary}\n`,
  )
  expect(verdict.lost).toEqual([])
  expect(verdict.ok, verdict.summary).toBe(true)
  expect(recording).toMatchObject({ crashes: 0, deadClaims: 0, staleResults: 0 })
})

async function playOutage(outageMs: number): Promise<void> {
  // They work: a job that started after this moment.
  await Promise.any(processes.map((node) => nextStart(node, 20_000)))
  await server.stop('immediate')
  const stopped = performance.now()
  await until(() => performance.now() - stopped >= outageMs, {
    deadlineMs: outageMs + 5_000,
    label: 'the outage',
  })
  await server.start()
  const back = performance.now()
  await Promise.any(processes.map((node) => nextStart(node, 30_000)))
  const firstMs = performance.now() - back
  await until(async () => (await listening()) === processes.length, {
    deadlineMs: 30_000,
    label: 'all listen',
  })
  const listenMs = performance.now() - back
  expect(processes.every((node) => processAlive(node.pid))).toBe(true)
  process.stdout.write(
    `outage of ${outageMs} ms: first job after ${firstMs.toFixed(0)} ms, all listening after ${listenMs.toFixed(0)} ms\n`,
  )
  expect(firstMs).toBeLessThan(5_000 * (long ? 1 : 3))
  expect(listenMs).toBeLessThan(10_000 * (long ? 1 : 3))
}

async function nextStart(node: NodeProcess, deadlineMs: number): Promise<void> {
  const seen = new Set(node.messages)
  await node.waitForMessage((message) => !seen.has(message) && isAbout(message, 'started'), { deadlineMs })
}

async function listening(): Promise<number> {
  const rows = await query<{ n: number }>(
    `select count(*)::int as n from pg_stat_activity where application_name = 'forge:listen'`,
  ).catch(() => [])
  return rows[0]?.n ?? 0
}

function processAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
