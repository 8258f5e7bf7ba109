import { randomUUID } from 'node:crypto'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { deferred, silentLogger } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { serve } from '../forge/kit.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }

const stateOf = async (id: string): Promise<string | undefined> =>
  (await database.query<{ state: string }>('select state from forge.node where id = $1', [id]))[0]?.state

describe('draining a node', () => {
  it('from another one: it starts nothing new, leads nothing, is not ready, and finishes what runs', async () => {
    const here = setup(database)
    const there = setup(database)
    const end = deferred<string>()
    const ran: number[] = []
    const job = here.forge.job('slow', {
      queue: 'drain',
      run: ({ n }: { n: number }) => {
        ran.push(n)
        return n === 0 ? end.promise : 'later'
      },
    })
    there.forge.job('slow', { queue: 'drain', run: () => 'elsewhere' })
    await using node = await here.attach({ lease, queues: { drain: { concurrency: 1 } } })
    await using other = await there.attach({ lease, queues: { drain: false } })
    node.whileLeading(
      'drained',
      ({ signal }) => new Promise((done) => signal.addEventListener('abort', () => done())),
    )
    await until(async () => (await other.cluster.leader('drained'))?.node === node.id, { label: 'leads' })
    const first = await job.enqueue({ n: 0 })
    await until(() => ran.length === 1, { label: 'runs' })
    await other.cluster.drain(node.id)
    await until(async () => !(await node.health()).ready, { label: 'not ready any more' })
    expect((await node.health()).checks).toContainEqual(expect.objectContaining({ name: 'drain', ok: false }))
    const second = await job.enqueue({ n: 1 })
    end.resolve('done')
    expect(await first.result({ timeout: '10s' })).toBe('done')
    await until(async () => (await other.cluster.leader('drained')) === null, { label: 'leads no more' })
    expect((await other.cluster.nodes()).find(({ id }) => id === node.id)?.state).toBe('draining')
    expect((await other.jobs.get(second.id))?.state).toBe('available')
    expect(ran).toEqual([0])
    // Twice is the same as once.
    await other.cluster.drain(node.id)
  })

  it('of itself is heeded at once, and stands when the lease is lost', async () => {
    const { attach } = setup(database)
    await using node = await attach({ lease })
    await node.cluster.drain()
    await until(async () => !(await node.health()).ready, { label: 'not ready' })
    await database.query(`update forge.node set state = 'dead', died_at = now() where id = $1`, [node.id])
    await until(async () => (await stateOf(node.id)) === 'draining', { label: 'back, and draining' })
  })

  it('shows in the probe, as a lost lease does, and the process lives on', async () => {
    const bundle = setup(database)
    const app = express()
    await using node = await bundle.forge.attach(app, bundle.pool, { lease, logger: silentLogger })
    await using site = await serve(app)
    const ready = async (): Promise<number> => (await site.ask('/forge/ready')).status
    expect(await ready()).toBe(200)
    // Nobody may write it: it cannot renew, and stops trusting its lease.
    const holder = await database.pool().connect()
    await holder.query('begin')
    await holder.query('select from forge.node where id = $1 for update', [node.id])
    await until(async () => (await ready()) === 503, { label: 'not ready without a lease' })
    await holder.query('rollback')
    holder.release()
    await until(async () => (await ready()) === 200, { label: 'ready again' })
    await node.cluster.drain()
    await until(async () => (await ready()) === 503, { label: 'not ready while it drains' })
    expect((await site.ask('/forge/live')).status).toBe(200)
  })

  it('gives back what was fetched and has not started', async () => {
    const here = setup(database)
    const there = setup(database)
    const end = deferred<void>()
    const ran = { here: 0, there: 0 }
    const job = here.forge.job('stocked', {
      queue: 'stock',
      run: ({ blocks }: { blocks: boolean }) => (blocks ? end.promise : void (ran.here += 1)),
    })
    there.forge.job('stocked', { queue: 'stock', run: () => void (ran.there += 1) })
    await using node = await here.attach({ lease, queues: { stock: { concurrency: 1 } } })
    // So many trivial ones that this node fetches ahead.
    await job.enqueueMany(Array.from({ length: 400 }, () => ({ blocks: false })))
    await until(() => ran.here === 400, { label: 'warm' })
    const first = await job.enqueue({ blocks: true })
    await until(async () => (await node.jobs.get(first.id))?.state === 'running', { label: 'blocks' })
    const count = 20
    await job.enqueueMany(Array.from({ length: count }, () => ({ blocks: false })))
    const fetched = async () => {
      const [row] = await database.query<{ n: number }>(
        `select count(*)::int as n from forge.job where state = 3 and id <> $1`,
        [first.id],
      )
      return row?.n ?? 0
    }
    await until(async () => (await fetched()) > 0, { label: 'fetched ahead' })
    await node.cluster.drain()
    await until(async () => (await fetched()) === 0, { label: 'given back' })
    await using _other = await there.attach({ lease })
    await until(() => ran.there === count, { label: 'run elsewhere' })
    expect(ran.here).toBe(400)
    end.resolve()
  })

  it('while it comes up lets it come up, and lead nothing', async () => {
    const bundle = setup(database)
    bundle.forge.daemon('idle', {
      run: ({ signal }) => new Promise((done) => signal.addEventListener('abort', () => done())),
    })
    await database.query(
      `create function drained() returns trigger language plpgsql as
       $$ begin new.state := 'draining'; new.drains := true; return new; end $$`,
    )
    await database.query(
      'create trigger drained before insert on forge.node for each row execute function drained()',
    )
    await using node = await bundle.attach({ lease })
    await database.query('drop trigger drained on forge.node')
    await until(async () => !(await node.health()).ready, { label: 'not ready' })
    const leaders = await node.cluster.leaders()
    expect(leaders.filter(({ node: id }) => id === node.id)).toEqual([])
    expect(() => node.whileLeading('late', () => {})).toThrow(
      expect.objectContaining({ code: 'FORGE_STOPPED' }),
    )
  })

  it('is not forgotten when the lease ends before the node has heard of it', async () => {
    const { attach } = setup(database)
    await using node = await attach({ lease })
    // As written by another node that saw this one stall, and by a third that then buried it.
    await database.query(
      `update forge.node set drains = true, state = 'dead', died_at = now() where id = $1`,
      [node.id],
    )
    await until(async () => !(await node.health()).ready && (await stateOf(node.id)) === 'draining', {
      label: 'back, and draining',
    })
  })

  it.each([
    ['unknown', randomUUID(), 'FORGE_NODE_UNKNOWN'],
    ['dead', 'dead', 'FORGE_NODE_UNKNOWN'],
    ['not an id', `"; drop --`, 'FORGE_OPTION_INVALID'],
  ])('is refused when the node is %s', async (_name, id, code) => {
    const { attach } = setup(database)
    await using node = await attach({ lease })
    const [dead] = await database.query<{ id: string }>(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', 'gone', 1, '0', '{}', '{}', now() - interval '1 s') returning id`,
    )
    await expect(node.cluster.drain(id === 'dead' ? dead?.id : id)).rejects.toMatchObject({ code })
  })
})
