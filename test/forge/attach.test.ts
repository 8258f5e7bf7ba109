import { createServer } from 'node:http'
import express from 'express'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { AlreadyAttached, createForge, DuplicateName, NotAttached } from '../../src/index.js'
import { startProxy } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { databaseUrl } from '../support/test-run.js'
import { until } from '../support/until.js'
import { forgeConnections, openResources, serve, untilNothingIsLeft } from './kit.js'

const database = useDatabase()

afterEach(() => vi.unstubAllEnvs())

/** The database behind a network that the test can cut. */
async function behindProxy() {
  const { hostname, port } = new URL(database.url)
  const proxy = await startProxy({ target: { host: hostname, port: Number(port) } })
  const pool = database.pool({ connectionString: proxy.url(database.url) })
  return { proxy, pool }
}

describe('mounting', () => {
  it('is done before the first await, so that the order of middleware is the host’s', async () => {
    const { forge, pool } = setup(database)
    const app = express()
    const seen: string[] = []
    app.use((req, _res, next) => {
      seen.push(`before ${req.url}`)
      next()
    })
    const attaching = forge.attach(app, pool)
    app.use((req, res) => {
      seen.push(`after ${req.url}`)
      res.status(418).end()
    })
    await using site = await serve(app)
    expect((await site.ask('/forge/live')).status).toBe(200)
    expect((await site.ask('/elsewhere')).status).toBe(418)
    expect(seen).toEqual(['before /forge/live', 'before /elsewhere', 'after /elsewhere'])
    await (await attaching).stop()
  })

  it('makes the process live at once, and ready when the node has started', async () => {
    const { proxy, pool } = await behindProxy()
    proxy.cut()
    const app = express()
    const attaching = createForge().attach(app, pool)
    await using site = await serve(app)
    expect(await site.ask('/forge/live')).toMatchObject({ status: 200, body: '{"status":"ok"}' })
    expect(await site.ask('/forge/ready')).toMatchObject({ status: 503, body: '{"status":"not ok"}' })
    expect((await site.ask('/forge')).status).toBe(503)
    proxy.heal()
    const node = await attaching
    expect((await site.ask('/forge/ready')).status).toBe(200)
    expect((await site.ask('/forge')).status).toBe(200)
    await node.stop()
    expect((await site.ask('/forge/live')).status).toBe(200)
    expect((await site.ask('/forge/ready')).status).toBe(503)
    expect((await site.ask('/forge')).status).toBe(503)
    await proxy.stop()
  })

  it('uses the slot of a stopped node again, and adds no layer', async () => {
    const { forge, pool } = setup(database)
    const app = express()
    await (await forge.attach(app, pool)).stop()
    const layers = app.router.stack.length
    await using site = await serve(app)
    for (let round = 0; round < 3; round += 1) {
      await using node = await forge.attach(app, pool)
      expect((await node.health()).ready).toBe(true)
      expect((await site.ask('/forge/ready')).status).toBe(200)
    }
    expect(app.router.stack).toHaveLength(layers)
    await (await createForge().attach(app, pool)).stop()
    expect(app.router.stack).toHaveLength(layers)
  })

  it('refuses a path that another instance has, and disturbs nothing of it', async () => {
    const first = setup(database)
    const second = setup(database)
    const app = express()
    const done = first.forge.job('taken.path', { run: (n: number) => n + 1 })
    await using node = await first.forge.attach(app, first.pool)
    const layers = app.router.stack.length
    const before = await forgeConnections(database)
    for (const path of ['/forge', '/FORGE']) {
      await expect(second.forge.attach(app, second.pool, { path, logger: false })).rejects.toMatchObject({
        code: 'FORGE_PATH_TAKEN',
      })
    }
    expect(app.router.stack).toHaveLength(layers)
    expect(await forgeConnections(database)).toEqual(before)
    await using site = await serve(app)
    expect((await site.ask('/forge/ready')).status).toBe(200)
    expect(await (await done.enqueue(1)).result()).toBe(2)
    await using beside = await second.forge.attach(app, second.pool, { path: '/forge2' })
    expect((await site.ask('/forge2/ready')).status).toBe(200)
    expect([...new Set([node.id, beside.id])]).toHaveLength(2)
  })

  it('serves a bare http server, whose own listener gets the rest', async () => {
    const { forge, pool } = setup(database)
    const server = createServer((req, res) => res.end(`own ${req.url}`))
    await using node = await forge.attach(server, pool)
    await using site = await serve(server)
    expect((await site.ask('/forge/ready')).status).toBe(200)
    expect((await site.ask('/other?a=1')).body).toBe('own /other?a=1')
    expect((await site.ask('/forged')).body).toBe('own /forged')
    expect(server.listenerCount('request')).toBe(1)
    await node.stop()
    await (await forge.attach(server, pool)).stop()
    expect(server.listenerCount('request')).toBe(1)
  })
})

describe('calls around the start', () => {
  it('reject with NotAttached before attach and after stop', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('early', { run: () => 1 })
    await expect(job.enqueue()).rejects.toBeInstanceOf(NotAttached)
    await expect(job.enqueueMany([1])).rejects.toMatchObject({ code: 'FORGE_NOT_ATTACHED' })
    await (await attach()).stop()
    await expect(job.enqueue()).rejects.toBeInstanceOf(NotAttached)
  })

  it('wait for an attach that was not awaited, and then succeed', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('waits', { run: (n: number) => n * 2 })
    const attaching = attach()
    const [one, many] = await Promise.all([job.enqueue(1), job.enqueueMany([2, 3])])
    expect(await one.result()).toBe(2)
    expect(await Promise.all(many.map((handle) => handle.result()))).toEqual([4, 6])
    await (await attaching).stop()
  })

  it('fail with the error of a start that fails, and with NotAttached after it', async () => {
    const { forge, attach } = setup(database, {
      connectionString: databaseUrl(database.url, 'no_such_database'),
    })
    const job = forge.job('fails', { run: () => 1 })
    const attaching = attach()
    await expect(job.enqueue()).rejects.toMatchObject({ code: 'FORGE_DATABASE_MISSING' })
    await expect(attaching).rejects.toMatchObject({ code: 'FORGE_DATABASE_MISSING' })
    await expect(job.enqueue()).rejects.toBeInstanceOf(NotAttached)
  })

  it('a second attach is refused while starting, running and stopping, and harms nothing', async () => {
    const { forge, attach, heard } = setup(database)
    const job = forge.job('twice', { run: () => 'ran' })
    const attaching = attach()
    await expect(attach()).rejects.toBeInstanceOf(AlreadyAttached)
    const node = await attaching
    await expect(attach()).rejects.toBeInstanceOf(AlreadyAttached)
    expect(await (await job.enqueue()).result()).toBe('ran')
    const stopping = node.stop()
    await expect(attach()).rejects.toMatchObject({ code: 'FORGE_ALREADY_ATTACHED' })
    await stopping
    await (await attach()).stop()
    expect(heard.filter(({ level }) => level === 'error')).toHaveLength(3)
  })

  it('jobs that are defined while the node runs are run, in queues of their own too', async () => {
    const { forge, attach } = setup(database)
    await using node = await attach()
    const job = forge.job('late.definition', { queue: 'late', run: (text: string) => text.toUpperCase() })
    expect(await (await job.enqueue('here')).result()).toBe('HERE')
    expect((await node.jobs.counts()).completed).toBeGreaterThan(0)
  })
})

describe('a name that is defined twice', () => {
  it.each(['production', 'staging', ''])('throws when NODE_ENV is %j, and keeps the first', async (env) => {
    const { forge, attach } = setup(database)
    vi.stubEnv('NODE_ENV', env || undefined)
    const first = forge.job('same', { run: () => 'first' })
    expect(() => forge.job('same', { run: () => 'second' })).toThrow(DuplicateName)
    expect(() => forge.job('same', { run: () => 'second' })).toThrow(/'same' is taken/)
    await using node = await attach({ schema: `env_${env || 'unset'}` })
    expect(await (await first.enqueue()).result()).toBe('first')
    expect(node.roles).toContain('worker')
  })

  it.each(['development', 'test'])('is replaced when NODE_ENV is %s, while the node runs', async (env) => {
    vi.stubEnv('NODE_ENV', env)
    const { forge, attach } = setup(database)
    const first = forge.job(`hot.${env}`, { run: () => 'first' })
    await using node = await attach()
    expect(await (await first.enqueue()).result()).toBe('first')
    const second = forge.job(`hot.${env}`, { queue: 'hot', run: () => 'second' })
    expect(await (await first.enqueue()).result()).toBe('second')
    expect(await (await second.enqueue()).result()).toBe('second')
    const queues = (await node.jobs.list({ name: `hot.${env}` })).map((job) => job.queue)
    expect(new Set(queues)).toEqual(new Set(['default', 'hot']))
  })
})

describe('stopping', () => {
  it('is idempotent, and calls at the same time join the first', async () => {
    const { attach } = setup(database)
    const before = await openResources(database)
    const node = await attach()
    const joined = [node.stop(), node.stop({ timeout: 1 }), node[Symbol.asyncDispose]()]
    await Promise.all(joined)
    await node.stop()
    await untilNothingIsLeft(database, before)
    expect(await node.health()).toMatchObject({ live: true, ready: false })
  })

  it('is done by `await using`', async () => {
    const { attach, forge } = setup(database)
    const job = forge.job('scoped', { run: () => 1 })
    const before = await openResources(database)
    {
      await using node = await attach()
      expect(await (await job.enqueue()).result()).toBe(1)
      expect(node.address).not.toBe('')
    }
    await untilNothingIsLeft(database, before)
  })

  it('rejects options that it does not know, and stops nothing', async () => {
    const { attach } = setup(database)
    await using node = await attach()
    await expect(node.stop({ timeout: 'soon' as '1s' })).rejects.toMatchObject({
      code: 'FORGE_DURATION_INVALID',
    })
    await expect(node.stop({ timeOut: 1 } as object)).rejects.toMatchObject({ code: 'FORGE_OPTION_UNKNOWN' })
    expect((await node.health()).ready).toBe(true)
  })

  it('gives up on waiting for results: those calls reject', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('never.done', { run: () => 1 })
    const node = await attach({ queues: { '*': false } })
    const handle = await job.enqueue()
    const refused = expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
    await node.stop()
    await refused
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
  })

  it('hands back what does not end in time without using an attempt, and lets the rest finish', async () => {
    const { forge, attach } = setup(database)
    const started = new Set<string>()
    let finish = (): void => {}
    const open = new Promise<void>((resolve) => (finish = resolve))
    const job = forge.job('stops', {
      run: async (kind: string, context) => {
        started.add(kind)
        if (kind === 'short') await open
        else await new Promise((_resolve, reject) => context.signal.addEventListener('abort', reject))
      },
    })
    const node = await attach()
    const [short, long] = [await job.enqueue('short'), await job.enqueue('long')]
    await until(() => started.size === 2, { label: 'both run' })
    const stopping = node.stop({ timeout: '1s' })
    finish()
    await stopping
    await using second = await attach({ queues: { '*': false } })
    expect(await second.jobs.get(short.id)).toMatchObject({ state: 'completed', attempt: 1 })
    expect(await second.jobs.get(long.id)).toMatchObject({ state: 'available', attempt: 0, errors: [] })
  })
})
