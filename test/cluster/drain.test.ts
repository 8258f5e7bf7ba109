import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

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
