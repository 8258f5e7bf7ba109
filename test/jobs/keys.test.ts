import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import type pg from 'pg'
import { announce, parseReady } from '../../src/jobs/hints.js'
import { KeySweep } from '../../src/jobs/keys.js'
import { createRuntime, type RuntimeParts } from '../../src/runtime/index.js'
import { optionTable } from '../../src/options.js'
import { resolveOptions, type Signals } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
let parts: RuntimeParts
beforeAll(() => {
  parts = createRuntime(database.pool({ max: 1 }), resolveOptions(optionTable, { logger: false }, {}))
})
afterAll(() => parts.close())
beforeEach(() => database.query('truncate forge.job, forge.job_unique'))

const left = async (): Promise<string[]> =>
  (await database.query<{ key: string }>('select key from forge.job_unique order by key')).map(
    ({ key }) => key,
  )

it('forgets the keys of jobs that are gone once their time is over, and no others', async () => {
  const { forge, attach } = setup(database)
  const shape = { by: (input: string) => input }
  const plain = forge.job('sweep.plain', { unique: shape, run: () => null })
  const held = forge.job('sweep.held', { unique: { ...shape, for: '1h' }, run: () => null })
  await using node = await attach({ roles: ['gateway'] })
  await plain.enqueue('waits')
  await held.enqueue('held and waits')
  const over = await held.enqueue('over and waits')
  await node.jobs.cancel((await plain.enqueue('gone')).id)
  await node.jobs.cancel((await held.enqueue('gone but held')).id)
  await node.jobs.cancel((await held.enqueue('gone and over')).id)
  await database.query(`update forge.job_unique set expires_at = now() where key like '%over%'`)
  await new KeySweep(parts.runtime.db).round()
  expect(await left()).toEqual(['gone but held', 'held and waits', 'over and waits', 'waits'])
  await node.jobs.cancel(over.id)
  await new KeySweep(parts.runtime.db).round()
  expect(await left()).toEqual(['gone but held', 'held and waits', 'waits'])
})

it('walks on from round to round, however many there are', async () => {
  await database.query(`insert into forge.job_unique (scope, key, job_id)
    select 'many', n::text, gen_random_uuid() from generate_series(1, 45000) n`)
  const sweep = new KeySweep(parts.runtime.db)
  expect([await sweep.round(), await sweep.round(), await sweep.round()]).toEqual([20_000, 20_000, 5_000])
})

it('leaves a key that is being taken over', async () => {
  const { forge, attach, pool } = setup(database)
  const job = forge.job('sweep.race', { unique: {}, run: (_: string) => null })
  await using node = await attach({ roles: ['gateway'] })
  await node.jobs.cancel((await job.enqueue('a')).id)
  const client: pg.PoolClient = await pool.connect()
  await client.query('begin')
  const next = await job.enqueue('a', { tx: client })
  expect(next.created).toBe(true)
  expect(await new KeySweep(parts.runtime.db).round()).toBe(0)
  await client.query('commit')
  client.release()
  expect(await new KeySweep(parts.runtime.db).round()).toBe(0)
  expect((await job.enqueue('a')).id).toBe(next.id)
})

it('is done by a node by itself, as a chore', async () => {
  await database.query(`insert into forge.job_unique values ('chore', 'k', gen_random_uuid())`)
  const { attach } = setup(database)
  await using _node = await attach()
  await until(async () => (await left()).length === 0, { label: 'swept' })
})

it('a ready key says lane and second, and what was forged says nothing', () => {
  const said: string[] = []
  const signals: Signals = {
    hint: (_topic, key) => void said.push(key),
    subscribe: () => () => {},
    proven: true,
  }
  announce(signals, [
    { lane: 7, waits: false, dueSeconds: 1_764_000_009 },
    { lane: 7, waits: false, dueSeconds: 1_764_000_000 },
    { lane: 8, waits: true, dueSeconds: 1_764_000_000 },
  ])
  expect(said).toEqual(['7@1764000000', '8'])
  expect(parseReady('7@1764000000')).toEqual({ lane: 7, due: 1_764_000_000 })
  expect(parseReady('7')).toEqual({ lane: 7, due: null })
  for (const text of ['mail', '7@', '7@x', '7@1.5', '7@9999999999999999', '99999999999', ''])
    expect(parseReady(text)).toBeNull()
})
