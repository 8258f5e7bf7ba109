import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { ClientSource, quoteSchema, Session } from '../../src/database/index.js'
import { claimJobs } from '../../src/jobs/queries/claim.js'
import { systemClock } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'

const database = useDatabase()

/** A node row with the given lease, and three available jobs in one lane. */
async function setup(node: { state?: string; leaseMs?: number } = {}) {
  const [id, epoch] = [randomUUID(), randomUUID()]
  await database.query(
    `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
     values ($1, $2, $3, 'here', 1, '0', '{}', '{}', clock_timestamp() + $4 * interval '1 ms')`,
    [id, epoch, node.state ?? 'active', node.leaseMs ?? 10_000],
  )
  const [lane] = await database.query<{ id: number }>(
    `insert into forge.job_lane (queue, name) values ($1, $1) returning id`,
    [id],
  )
  await database.query(
    `insert into forge.job (id, lane, state, priority, attempts_max, due, input)
     select gen_random_uuid(), $1, 2, 50, 5, now() + i * interval '1 s', to_jsonb(i) from generate_series(1, 3) i`,
    [lane?.id],
  )
  const context = {
    source: new ClientSource(database.pool()),
    schema: quoteSchema('forge'),
    clock: systemClock,
  }
  const open = (): Session => new Session(context, { purpose: 'test', statementMs: 5_000 })
  const session = open()
  const claim = (as: { epoch?: string; free?: number; from?: Session; suspects?: boolean } = {}) =>
    (as.from ?? session).run(claimJobs, [
      id,
      as.epoch ?? epoch,
      [lane?.id],
      [0],
      [as.free ?? 10],
      as.suspects ?? true,
    ])
  return { claim, session, open }
}

describe('the claim statement', () => {
  it('gives the most due jobs, up to the free slots, each with a token of its own', async () => {
    const { claim, session } = await setup()
    const rows = await claim({ free: 2 })
    expect(rows.map((row) => row.input).sort()).toEqual([1, 2])
    expect(new Set(rows.map((row) => row.token)).size).toBe(2)
    expect(rows.every((row) => row.attempt === 1 && row.claims === 1)).toBe(true)
    expect((await claim()).map((row) => row.input)).toEqual([3])
    expect(await claim()).toEqual([])
    await session.close()
  })

  it('gives one suspect at most, and none while one runs', async () => {
    const { claim, session } = await setup()
    await database.query(`update forge.job set crashes = 2 where state = 2 and input <> '3'`)
    expect((await claim({ suspects: false })).map((row) => row.input)).toEqual([3])
    expect((await claim()).map((row) => row.input)).toEqual([1])
    expect((await claim()).map((row) => row.input)).toEqual([2])
    await session.close()
  })

  it.each([
    ['the lease has expired', { leaseMs: -1 }, {}],
    ['the lease was declared dead', { state: 'dead' }, {}],
    ['the epoch is not the current one', {}, { epoch: randomUUID() }],
  ])('gives nothing when %s', async (_name, node, as) => {
    const { claim, session } = await setup(node)
    expect(await claim(as)).toEqual([])
    await session.close()
  })

  it('never gives one job to two claims that run side by side', async () => {
    const { claim, session, open } = await setup()
    const others = [open(), open(), open()]
    const claims = await Promise.all([session, ...others].map((from) => claim({ free: 2, from })))
    const ids = claims.flat().map((row) => row.id)
    expect(ids.length).toBeGreaterThan(0)
    expect(new Set(ids).size).toBe(ids.length)
    for (const one of [session, ...others]) await one.close()
  })
})
