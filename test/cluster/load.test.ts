import { hostname } from 'node:os'
import { describe, expect, it, vi } from 'vitest'
import { LoadMeter, type NodeLoad } from '../../src/cluster/load.js'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }

describe('what a node says of itself', () => {
  it('is its load, and what it serves, for others to see', async () => {
    const { forge, attach } = setup(database)
    const gate = deferred<void>()
    const job = forge.job('load.work', { queue: 'load', run: () => gate.promise })
    await using node = await attach({ lease, concurrency: 3 })
    await using other = await setup(database).attach({ lease, roles: ['gateway'] })
    for (let n = 0; n < 5; n++) await job.enqueue()
    const seen = async () => (await other.cluster.nodes()).find(({ id }) => id === node.id)
    await until(async () => (await seen())?.load?.running === 3, { label: 'three run' })
    const found = await seen()
    expect(found).toMatchObject({
      state: 'active',
      load: { running: 3, slots: 3 },
      serves: { queues: ['load'], names: ['load.work'] },
    })
    expect(found?.load?.memoryMb).toBeGreaterThan(20)
    expect(found?.load?.cpu).toBeGreaterThanOrEqual(0)
    expect(Math.abs(found?.load?.clockMs ?? Number.NaN)).toBeLessThan(2_000)
    gate.resolve()
    await until(async () => (await seen())?.load?.running === 0, { label: 'none runs' })
    const gateway = (await node.cluster.nodes()).find(({ id }) => id === other.id)
    expect(gateway).toMatchObject({ load: { running: 0, slots: 0 }, serves: { queues: [], names: [] } })
  })

  it('is said anew after its row was deleted', async () => {
    const { forge, attach } = setup(database)
    forge.job('load.again', { run: () => null })
    await using node = await attach({ lease })
    const serves = async () => (await node.cluster.nodes()).find(({ id }) => id === node.id)?.serves?.names
    await until(async () => (await serves())?.[0] === 'load.again', { label: 'said' })
    await database.query('delete from forge.node where id = $1', [node.id])
    await until(async () => (await serves())?.[0] === 'load.again', { label: 'said again' })
    const [self] = await node.cluster.nodes()
    expect(self?.state).toBe('active')
  })

  it('tells how late its event loop was, and is not late without a reason', () => {
    let now = 1_000
    const meter = new LoadMeter({
      monotonicMs: () => now,
      wallMs: () => now,
      timer: () => ({ cancel: () => {} }),
    })
    const loopMs = (): number => (JSON.parse(meter.take().load) as NodeLoad).loopMs
    for (const step of [100, 103, 100]) {
      meter.tick(100)
      now += step
    }
    expect(loopMs()).toBe(0)
    meter.tick(100)
    now += 850
    meter.tick(100)
    expect(loopMs()).toBe(750)
    expect(loopMs()).toBe(0)
  })
})

it('a clock that is off is said by name once, and health shows it', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  vi.setSystemTime(Date.now() - 300_000)
  const bundle = setup(database)
  await using node = await bundle.attach({ lease })
  const clock = async () => (await node.health()).checks.find(({ name }) => name === 'clock')
  await until(async () => (await clock())?.ok === false, { label: 'seen' })
  expect((await clock())?.detail).toMatch(/^(299|300|301)\.\d s behind that of the database$/)
  // It works as ever: leases go by the database.
  expect((await node.health()).ready).toBe(true)
  const said = bundle.heard.filter(
    ({ level, message }) => level === 'warn' && message.includes('the clock of'),
  )
  expect(said.map(({ message }) => message)).toEqual([expect.stringContaining(hostname())])
  vi.useRealTimers()
  await until(async () => (await clock())?.ok === true, { label: 'mended' })
})

it('a list of nodes begins with those that live, however many have died', async () => {
  await using node = await setup(database).attach({ lease })
  await database.query(
    `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until, started_at, died_at)
     select gen_random_uuid(), gen_random_uuid(), 'dead', 'gone', 1, '0', '{}', '{}', now() - interval '1 s', now() + interval '1 s', now()
     from generate_series(1, 250)`,
  )
  const nodes = await node.cluster.nodes()
  expect([nodes.length, nodes[0]?.id]).toEqual([200, node.id])
})

describe('a node that is coming up', () => {
  it('is joining until all of its services run, and leads nothing before', async () => {
    await database.query(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values ('11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222', 'joining', 'h', 1, '0', '{}', '{}',
               now() + interval '1 h')`,
    )
    const lead = () =>
      database.query(
        `select * from forge.lead('11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222', '{up}', false, 1000)`,
      )
    expect(await lead()).toEqual([])
    await database.query(`update forge.node set state = 'active' where host = 'h'`)
    expect(await lead()).toHaveLength(1)
    await database.query(`delete from forge.node where host = 'h'`)
  })
})
