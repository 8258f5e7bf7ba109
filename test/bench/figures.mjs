/*
 * Prints the figures of an idle and of a lightly loaded node: start latency, idle statements, connections, memory.
 * `npm run figures`; needs a build. The server is the embedded one with durable settings.
 */
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createForge } from 'forge'
import { startEmbedded } from 'forge/embedded'
import pg from 'pg'

const jobs = 1_000
const idleSeconds = 20

const server = await startEmbedded({
  dataDir: path.join(tmpdir(), `forge-figures-${process.pid}`),
  keep: false,
  settings: { shared_preload_libraries: 'pg_stat_statements' },
})
const pool = new pg.Pool({ connectionString: server.url, max: 2 }).on('error', () => {})
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const rows = async (sql) => (await pool.query(sql)).rows

try {
  await pool.query('create extension if not exists pg_stat_statements')
  const [producer, worker] = [createForge(), createForge()]
  const starts = new Map()
  const nothing = producer.job('figures', { run: () => null })
  worker.job('figures', { run: (_input, job) => void starts.set(job.id, performance.now()) })
  const gateway = await producer.attach(null, pool, { roles: ['gateway'], signals: true })
  const perGateway = await connections()
  const node = await worker.attach(null, pool, { signals: true })
  await latency(nothing, starts)
  console.log(`connections: gateway ${perGateway}, gateway and worker together ${await connections()}`)
  await gateway.stop()
  await idle()
  console.log(`memory: ${(process.memoryUsage().rss / 1e6).toFixed(0)} MB resident, this script included`)
  await node.stop()
} finally {
  await pool.end()
  await server[Symbol.asyncDispose]()
}

async function latency(job, starts) {
  const enqueues = []
  const delays = []
  for (let i = 0; i < jobs + 50; i++) {
    const at = performance.now()
    const { id } = await job.enqueue({ i })
    const enqueued = performance.now()
    while (!starts.has(id)) await sleep(1)
    // The first fifty warm up.
    if (i >= 50) {
      enqueues.push(enqueued - at)
      delays.push(starts.get(id) - at)
    }
    await sleep(5 + Math.random() * 10)
  }
  console.log(
    `enqueue (awaited, durable): p50 ${quantile(enqueues, 0.5)} ms, p99 ${quantile(enqueues, 0.99)} ms`,
  )
  console.log(
    `enqueue to start, other node, idle: p50 ${quantile(delays, 0.5)} ms, p99 ${quantile(delays, 0.99)} ms`,
  )
}

async function idle() {
  await sleep(3_000)
  await pool.query('select pg_stat_statements_reset()')
  const [before] = await rows(
    `select xact_commit + xact_rollback as n from pg_stat_database where datname = current_database()`,
  )
  await sleep(idleSeconds * 1_000)
  const statements = await rows(
    `select sum(calls)::int as calls from pg_stat_statements where query not like '%pg_stat_%'`,
  )
  const [after] = await rows(
    `select xact_commit + xact_rollback as n from pg_stat_database where datname = current_database()`,
  )
  const per = (n) => (n / idleSeconds).toFixed(2)
  console.log(
    `idle node, all roles: ${per(statements[0].calls)} statements/s, ${per(after.n - before.n)} transactions/s`,
  )
}

async function connections() {
  const [row] = await rows(
    `select count(*)::int as n from pg_stat_activity where application_name like 'forge:%'`,
  )
  return row.n
}

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(q * sorted.length)].toFixed(1)
}
