/*
 * The other queues on PostgreSQL, each with the settings that measured best for it: graphile-worker with a local queue and
 * batched completion, pg-boss with large batches and two loops, by notification where latency is what counts. They are no
 * dependencies of this project: `--peers` installs these versions into a temporary folder.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import pg from 'pg'

export const peerVersions = { 'graphile-worker': '0.18.0', 'pg-boss': '12.38.0' }

/** @returns the folder, removed with `stage` */
export function installPeers(stage) {
  const folder = mkdtempSync(path.join(tmpdir(), 'forge-bench-peers-'))
  stage.defer(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(
    path.join(folder, 'package.json'),
    JSON.stringify({ private: true, dependencies: peerVersions }),
  )
  const { status } = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--loglevel', 'error'], {
    cwd: folder,
    shell: process.platform === 'win32',
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (status !== 0)
    throw new Error('The peers could not be installed; without --peers forge is measured alone.')
  return folder
}

export async function loadPeer(name, folder) {
  const entry = createRequire(path.join(folder, 'package.json')).resolve(name)
  const library = await import(pathToFileURL(entry).href)
  return { name, ...peers[name](library.default ? { ...library.default, ...library } : library) }
}

const peers = { 'graphile-worker': graphileWorker, 'pg-boss': pgBoss }

const pollers = new Map()

async function count({ url }, sql) {
  if (!pollers.has(url))
    pollers.set(
      url,
      new pg.Pool({ connectionString: url, max: 1 }).on('error', () => {}),
    )
  return Number((await pollers.get(url).query(sql)).rows[0].n)
}

function graphileWorker({ run, makeWorkerUtils, Logger }) {
  const logger = new Logger(() => (level, message) => {
    // Databases are dropped under connections that it still keeps.
    if (level === 'error' && !message.includes('terminating connection'))
      process.stderr.write(`graphile-worker: ${message}\n`)
  })
  const worker = {
    concurrentJobs: 24,
    maxPoolSize: 26,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  }
  return {
    async setup({ url }) {
      const utils = await makeWorkerUtils({ connectionString: url, logger })
      await utils.migrate()
      await utils.release()
    },
    async producer({ url }) {
      const utils = await makeWorkerUtils({ connectionString: url, logger, maxPoolSize: 10 })
      return {
        enqueueOne: (payload) => utils.addJob('bench', payload),
        // Smaller numbers are more urgent; the default is 0.
        enqueueUrgent: (payload) => utils.addJob('bench', payload, { priority: -10 }),
        bulkChunk: 5_000,
        enqueueBulk: (payloads) =>
          utils.addJobs(payloads.map((payload) => ({ identifier: 'bench', payload }))),
        close: () => utils.release(),
      }
    },
    startWorker({ url }, onJob) {
      return run({
        logger,
        preset: { worker: { connectionString: url, ...worker } },
        noHandleSignals: true,
        taskList: { bench: async (payload) => onJob(payload) },
      })
    },
    unfinished: (ctx) => count(ctx, 'select count(*) as n from graphile_worker._private_jobs'),
  }
}

function pgBoss({ PgBoss }) {
  const start = async ({ url }, options) => {
    const boss = new PgBoss({ connectionString: url, max: 10, ...options })
    boss.on('error', (error) => process.stderr.write(`pg-boss: ${error.message}\n`))
    await boss.start()
    return boss
  }
  const stop = (boss) => boss.stop({ graceful: false })
  const work = { batchSize: 500, localConcurrency: 2, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
  const isQuick = ({ scenario }) => ['latency', 'steady', 'idle', 'urgent'].includes(scenario)
  return {
    async setup(ctx) {
      const boss = await start(ctx)
      await boss.createQueue('bench', { notify: isQuick(ctx) })
      await stop(boss)
    },
    async producer(ctx) {
      const boss = await start(ctx, { supervise: false, schedule: false })
      return {
        enqueueOne: (payload) => boss.send('bench', payload),
        enqueueUrgent: (payload) => boss.send('bench', payload, { priority: 10 }),
        bulkChunk: 5_000,
        enqueueBulk: (payloads) =>
          boss.insert(
            'bench',
            payloads.map((data) => ({ data })),
          ),
        close: () => stop(boss),
      }
    },
    async startWorker(ctx, onJob) {
      const quick = isQuick(ctx)
      const boss = await start(ctx, { useListenNotify: quick })
      const options = quick ? { ...work, notifyPollingIntervalSeconds: 2 } : work
      await boss.work('bench', options, (jobs) => Promise.all(jobs.map(({ data }) => onJob(data))))
      return { stop: () => stop(boss) }
    },
    unfinished: (ctx) =>
      count(ctx, `select count(*) as n from pgboss.job where name = 'bench' and state < 'completed'`),
  }
}
