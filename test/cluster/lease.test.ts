import { Socket } from 'node:net'
import type { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { createForge } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { startProxy } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { listeningLogger, setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }

interface NodeRow {
  readonly epoch: string
  readonly state: string
  readonly left_ms: number
}

async function nodeRow(id: string): Promise<NodeRow | undefined> {
  const [row] = await database.query<NodeRow>(
    `select epoch, state, (extract(epoch from lease_until - clock_timestamp()) * 1000)::float8 as left_ms
     from forge.node where id = $1`,
    [id],
  )
  return row
}

/** Keeps the event loop busy, as a handler that computes does. */
function block(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

describe('the lease', () => {
  it('is kept while the event loop is blocked for twice its length, and nothing is started twice', async () => {
    const here = setup(database)
    const there = setup(database)
    let runs = 0
    const job = here.forge.job('blocking', {
      queue: 'blocking',
      run: (_input: unknown, job) => {
        runs++
        block(2 * lease.ms)
        return job.attempt
      },
    })
    there.forge.job('blocking', { queue: 'blocking', run: () => void runs++ })
    await using watcher = await there.attach({ lease, queues: { blocking: false } })
    await using node = await here.attach({ lease })
    const { epoch } = (await nodeRow(node.id)) as NodeRow
    const handle = await job.enqueue({})
    expect(await handle.result({ timeout: '20s' })).toBe(1)
    expect(runs).toBe(1)
    expect(await nodeRow(node.id)).toMatchObject({ epoch, state: 'active' })
    expect((await watcher.jobs.get(handle.id))?.crashes).toBe(0)
  })

  it('that was declared dead aborts the handlers, and the node goes on under a new epoch', async () => {
    const { forge, attach } = setup(database)
    const reasons: unknown[] = []
    const job = forge.job('outlived', {
      queue: 'outlived',
      run: (_input: unknown, job) =>
        job.fence.n > 1
          ? 'second claim'
          : new Promise((_, reject) => {
              job.signal.addEventListener('abort', () => {
                reasons.push((job.signal.reason as { code?: string }).code)
                reject(new Error('aborted'))
              })
            }),
    })
    await using node = await attach({ lease })
    const before = (await nodeRow(node.id)) as NodeRow
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.state === 'running', { label: 'running' })
    await database.query(`update forge.node set state = 'dead', died_at = now() where id = $1`, [node.id])
    expect(await handle.result({ timeout: '20s' })).toBe('second claim')
    expect(reasons).toEqual(['FORGE_LEASE_LOST'])
    const after = (await nodeRow(node.id)) as NodeRow
    expect(after.state).toBe('active')
    expect(after.epoch).not.toBe(before.epoch)
    expect((await node.jobs.get(handle.id))?.crashes).toBe(1)
  })

  it('of a node whose row was deleted is taken anew', async () => {
    const { attach } = setup(database)
    await using node = await attach({ lease })
    await database.query('delete from forge.node where id = $1', [node.id])
    await until(async () => (await nodeRow(node.id))?.state === 'active', { label: 'rejoined' })
    await until(async () => (await node.health()).ready, { label: 'ready again' })
  })

  it('ends a dead node only by a node that was in contact for a whole lease', async () => {
    const { attach } = setup(database)
    const [dead] = await database.query<{ id: string }>(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', 'gone', 1, '0', '{}', '{}', now() - interval '1 hour')
       returning id`,
    )
    const attached = performance.now()
    await using _node = await attach({ lease })
    await until(async () => (await nodeRow(dead?.id as string))?.state === 'dead', { label: 'declared dead' })
    expect(performance.now() - attached).toBeGreaterThan(lease.ms)
  })
})

describe('a node that lost its pulse for a moment', () => {
  it('still declares others dead afterwards', async () => {
    const { attach } = setup(database)
    await using node = await attach({ lease })
    const before = (await nodeRow(node.id)) as NodeRow
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name = 'forge:pulse' and datname = current_database()`,
    )
    await until(async () => ((await nodeRow(node.id))?.left_ms ?? 0) > lease.ms - 250, {
      label: 'beating again',
    })
    expect((await nodeRow(node.id))?.epoch).toBe(before.epoch)
    const [dead] = await database.query<{ id: string }>(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', 'gone', 1, '0', '{}', '{}', now() - interval '1 hour')
       returning id`,
    )
    await until(async () => (await nodeRow(dead?.id as string))?.state === 'dead', { label: 'declared dead' })
  })
})

describe('lost contact', () => {
  it('aborts handlers before the lease ends, costs no attempt and no crash, and heals by itself', async () => {
    const target = new URL(database.url)
    await using proxy = await startProxy({ target: { host: target.hostname, port: Number(target.port) } })
    const forge = createForge()
    const { logger } = listeningLogger()
    const aborted = deferred<{ code: string; at: number }>()
    const job = forge.job('cut.off', {
      queue: 'cut',
      retry: { attempts: 1 },
      run: (_input: unknown, job) =>
        job.fence.n > 1
          ? { attempt: job.attempt }
          : new Promise((_, reject) => {
              job.signal.addEventListener('abort', () => {
                const { code } = job.signal.reason as { code: string }
                aborted.resolve({ code, at: performance.now() })
                reject(new Error('aborted'))
              })
            }),
    })
    const pool = database.pool({ connectionString: proxy.url(database.url), connectionTimeoutMillis: 5_000 })
    await using node = await forge.attach(null, pool, { lease, logger, stopTimeout: '2s' })
    const handle = await job.enqueue({})
    await until(async () => (await node.jobs.get(handle.id))?.state === 'running', { label: 'running' })
    const cutAt = performance.now()
    proxy.blackhole()
    const { code, at } = await aborted.promise
    expect(code).toBe('FORGE_LEASE_LOST')
    // Trust is 0.8 of the lease, counted from before the last renewal was sent.
    expect(at - cutAt).toBeLessThan(lease.ms)
    expect((await node.health()).ready).toBe(false)
    proxy.cut()
    proxy.resume()
    proxy.heal()
    expect(await handle.result({ timeout: '30s' })).toEqual({ attempt: 1 })
    expect(await node.jobs.get(handle.id)).toMatchObject({ crashes: 0, attempt: 1 })
    expect((await node.health()).ready).toBe(true)
  })
})

describe('the pulse', () => {
  it('asks the main thread for a password that is a function', async () => {
    const url = new URL(database.url)
    let asked = 0
    const config = {
      host: url.hostname,
      port: Number(url.port),
      user: url.username,
      database: database.name,
      connectionString: undefined,
      password: () => {
        asked++
        return decodeURIComponent(url.password)
      },
    }
    const { attach } = setup(database, config)
    await using node = await attach({ lease })
    const pulse = (await node.health()).checks.find((check) => check.name === 'pulse')
    expect(pulse).toMatchObject({ ok: true })
    const before = asked
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name = 'forge:pulse' and datname = current_database()`,
    )
    await until(() => asked > before, { label: 'asked again' })
    await until(async () => ((await nodeRow(node.id))?.left_ms ?? 0) > lease.ms / 2, { label: 'renewed' })
  })

  it('goes on from the main loop when its thread ends, and health says so', async () => {
    const { attach, forge } = setup(database)
    const job = forge.job('threadless', { queue: 'threadless', run: () => 'ran' })
    const threads: Worker[] = []
    const note = (thread: Worker): void => void threads.push(thread)
    process.on('worker', note)
    await using node = await attach({ lease })
    process.off('worker', note)
    await threads[0]?.terminate()
    await until(
      async () => (await node.health()).checks.some((check) => check.name === 'pulse' && !check.ok),
      { label: 'seen' },
    )
    await until(async () => ((await nodeRow(node.id))?.left_ms ?? 0) > lease.ms - 250, {
      label: 'beating again',
    })
    expect(await (await job.enqueue({})).result()).toBe('ran')
    expect((await node.health()).ready).toBe(true)
  })

  it('runs on the main loop when the host brings its own socket, and health says so', async () => {
    const { attach, forge } = setup(database, { stream: () => new Socket() })
    const job = forge.job('by.main.loop', { queue: 'main', run: () => 'ran' })
    await using node = await attach({ lease })
    const pulse = (await node.health()).checks.find((check) => check.name === 'pulse')
    expect(pulse).toMatchObject({ ok: false, detail: expect.stringContaining('stream') as string })
    expect(await (await job.enqueue({})).result()).toBe('ran')
    const first = (await nodeRow(node.id)) as NodeRow
    await until(async () => ((await nodeRow(node.id))?.left_ms ?? 0) > first.left_ms, { label: 'renewed' })
    expect((await node.health()).ready).toBe(true)
  })
})
