import { createHash, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { decodeHints } from '../../src/database/hints.js'
import type { ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

/** Calls forge.enqueue with named arguments. */
async function enqueue(args: Record<string, unknown>): Promise<string> {
  const list = Object.keys(args).map((name, at) => `${name} => $${at + 1}`)
  const [row] = await database.query<{ id: string }>(
    `select forge.enqueue(${list.join(', ')}) as id`,
    Object.values(args),
  )
  return row?.id as string
}

interface Stored {
  readonly [column: string]: unknown
  readonly due_ms: number
}

const stored = async (id: string): Promise<Stored | undefined> =>
  (
    await database.query<Stored>(
      `select name, queue, capability, state, priority, attempts_max, run_at, tags, parent, gates, gate, input,
              extract(epoch from due - run_at)::float8 * 1000 as due_ms
       from forge.job join forge.job_lane l on l.id = lane where job.id = $1`,
      [id],
    )
  )[0]

let node: ForgeNode
beforeAll(async () => {
  const { forge, attach } = setup(database)
  const run = () => null
  forge.job('sql.plain', { queue: 'sql', priority: 75, retry: { attempts: 3 }, run })
  forge.job('sql.keyed', { queue: 'sql', unique: { by: (input: { user: string }) => input.user }, run })
  forge.job('sql.hashed', { queue: 'sql', unique: {}, run: (_: unknown) => null })
  forge.job('sql.replaced', { queue: 'sql', unique: { by: (_: unknown) => '', onConflict: 'replace' }, run })
  forge.job('sql.debounced', { queue: 'sql', unique: { onConflict: 'debounce', for: '1h' }, run })
  forge.job('sql.media', { queue: 'sql', capability: 'media', run })
  node = await attach({ roles: ['gateway'] })
  // As the definitions with limits of another process would have written it.
  await database.query(`
    insert into forge.job_definition (name, version, queue, priority, attempts, capability, unique_keyed,
      concurrency_limit, concurrency_keyed, rate_limit, rate_per_ms, rate_keyed)
    values ('sql.limited', 1, 'sql', 50, 5, '', false, 3, true, 10, 1000, false),
           ('sql.slow', 1, 'sql', 50, 5, '', false, null, false, 10, 1000, false)`)
  await database.query(`
    insert into forge.job_limit (gate_class, limit_n, per_ms, keyed)
    values ('c/sql.limited', 3, null, true), ('r/sql.limited', 10, 1000, false), ('r/sql.slow', 10, 1000, false)`)
})
afterAll(() => node.stop())

describe('forge.enqueue', () => {
  it('makes a job as its definition says', async () => {
    const id = await enqueue({ name: 'sql.plain', input: '{"a": 1}' })
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(Math.abs(parseInt(id.replaceAll('-', '').slice(0, 12), 16) - Date.now())).toBeLessThan(60_000)
    expect(await stored(id)).toMatchObject({
      ...{ name: 'sql.plain', queue: 'sql', state: 2, priority: 75, attempts_max: 3, due_ms: 25 * 6_000 },
      ...{ input: { a: 1 }, tags: null, parent: null, gates: null, gate: null, capability: '' },
    })
    expect(await stored(await enqueue({ name: 'sql.media' }))).toMatchObject({
      capability: 'media',
      input: null,
    })
  })

  it('takes queue, time, priority, id, tags and parent', async () => {
    const [own, parent] = [randomUUID(), randomUUID()]
    const runAt = new Date('2031-02-03T04:05:06Z')
    const tags = ['a', 'with "quotes", commas', 'b\\c']
    const args = { name: 'sql.plain', queue: 'elsewhere', run_at: runAt, priority: 0, id: own, tags, parent }
    expect(await enqueue(args)).toBe(own)
    expect(await stored(own)).toMatchObject({
      ...{ queue: 'elsewhere', run_at: runAt, priority: 0, tags, parent, state: 0, due_ms: 600_000 },
    })
    // A repeat is harmless.
    expect(await enqueue({ ...args, priority: 9 })).toBe(own)
    expect(await stored(own)).toMatchObject({ priority: 0 })
  })

  it('makes no second job of an id that is finished', async () => {
    const id = await enqueue({ name: 'sql.plain', id: randomUUID() })
    await node.jobs.cancel(id)
    expect(await enqueue({ name: 'sql.plain', id })).toBe(id)
    expect(await stored(id)).toBeUndefined()
  })

  it('keeps unique jobs unique, together with those that JavaScript enqueues', async () => {
    const first = await enqueue({ name: 'sql.keyed', input: '{"user": "a"}', key: 'a' })
    expect(await enqueue({ name: 'sql.keyed', input: '{"user": "a"}', key: 'a' })).toBe(first)
    expect(await enqueue({ name: 'sql.keyed', input: '{"user": "b"}', key: 'b' })).not.toBe(first)
    const { forge, attach } = setup(database)
    const keyed = forge.job('sql.keyed', {
      queue: 'sql',
      unique: { by: (i: { user: string }) => i.user },
      run: () => 1,
    })
    const hashed = forge.job('sql.hashed', { queue: 'sql', unique: {}, run: (_: unknown) => null })
    await using _other = await attach({ roles: ['gateway'] })
    expect(await keyed.enqueue({ user: 'a' })).toMatchObject({ id: first, reason: 'duplicate' })
    const hash = await hashed.enqueue({ b: [1, 'x'], a: null })
    expect(await enqueue({ name: 'sql.hashed', input: '{"a": null, "b": [1, "x"]}' })).toBe(hash.id)
  })

  it('replaces and debounces as the definition says', async () => {
    const first = await enqueue({ name: 'sql.replaced', input: '1', key: 'k', priority: 1 })
    expect(await enqueue({ name: 'sql.replaced', input: '2', key: 'k', priority: 2 })).toBe(first)
    expect(await stored(first)).toMatchObject({ input: 2, priority: 2 })
    const late = await enqueue({ name: 'sql.debounced', input: '1' })
    expect(await stored(late)).toMatchObject({ state: 0 })
    expect(await enqueue({ name: 'sql.debounced', input: '1' })).toBe(late)
  })

  it('blocks a job with limits at its first gate, once its time has come', async () => {
    const gates = ['c/sql.limited=42', 'r/sql.limited']
    expect(await stored(await enqueue({ name: 'sql.limited', key: '42' }))).toMatchObject({
      ...{ state: 1, gates, gate: gates[0] },
    })
    const later = await enqueue({ name: 'sql.limited', key: '42', run_at: new Date('2031-01-01') })
    expect(await stored(later)).toMatchObject({ state: 0, gates, gate: null })
    expect(await stored(await enqueue({ name: 'sql.slow' }))).toMatchObject({
      gates: ['r/sql.slow'],
      state: 1,
    })
  })

  it('belongs to the transaction that calls it', async () => {
    const client = await database.pool({ max: 1 }).connect()
    await client.query('begin')
    const { rows } = await client.query<{ id: string }>(
      `select forge.enqueue('sql.keyed', 'null', key => 'undone', queue => 'undone.queue') as id`,
    )
    await client.query('rollback')
    client.release()
    expect(await stored(rows[0]?.id as string)).toBeUndefined()
    const again = await enqueue({ name: 'sql.keyed', key: 'undone', queue: 'undone.queue' })
    expect(await stored(again)).toMatchObject({ queue: 'undone.queue' })
  })

  it('works whatever the search path and the settings of the caller are', async () => {
    const client = await database.pool({ max: 1 }).connect()
    await client.query(`create schema trap; create table trap.job_definition (name text); set search_path = trap;
                        set datestyle = 'German'; set timezone = 'Asia/Kolkata'; set transform_null_equals = on`)
    const { rows } = await client.query<{ id: string }>(`select forge.enqueue('sql.plain', '{}') as id`)
    client.release(true)
    expect(await stored(rows[0]?.id as string)).toMatchObject({ name: 'sql.plain' })
  })
})

describe('forge.enqueue_many', () => {
  it('makes one job per element, in their order', async () => {
    const rows = await database.query<{ id: string }>(
      `select * from forge.enqueue_many('sql.plain', (select jsonb_agg(n) from generate_series(1, 6000) n), tags => '{bulk}') as id`,
    )
    expect(rows).toHaveLength(6_000)
    const ids = rows.map(({ id }) => id)
    expect([...ids].sort()).toEqual(ids)
    expect(await stored(ids[4_321] as string)).toMatchObject({ input: 4_322, tags: ['bulk'], state: 2 })
    expect(await database.query(`select from forge.enqueue_many('sql.plain', '[]')`)).toEqual([])
  })

  it('resolves what is equal within the call', async () => {
    const rows = await database.query<{ id: string }>(
      `select * from forge.enqueue_many('sql.hashed', '["x", "y", "x"]') as id`,
    )
    expect(rows[2]?.id).toBe(rows[0]?.id)
    expect(rows[1]?.id).not.toBe(rows[0]?.id)
  })
})

describe('what SQL is refused', () => {
  const wide = 'é'.repeat(101)
  const cases: Record<string, [Record<string, unknown>, string, RegExp]> = {
    'an unknown name': [{ name: 'sql.unknown' }, 'ZF001', /no job is defined as 'sql\.unknown'/],
    'a name of null': [{ name: null }, 'ZF001', /null/],
    'a hostile name': [{ name: `'; drop table forge.job; --` }, 'ZF001', /'''; drop table/],
    'a huge name': [{ name: 'x'.repeat(1_000_000) }, 'ZF001', /^.{0,120}$/],
    'a missing key': [{ name: 'sql.keyed' }, 'ZF002', /'sql\.keyed' needs a key/],
    'a missing key for a limit': [{ name: 'sql.limited' }, 'ZF002', /needs a key/],
    'a hostile queue': [{ name: 'sql.plain', queue: 'a b"\'$$' }, 'ZF003', /queue name/],
    'an empty queue': [{ name: 'sql.plain', queue: '' }, 'ZF003', /queue name/],
    'a queue with an @': [{ name: 'sql.plain', queue: 'a@1' }, 'ZF003', /queue name/],
    'a queue with a line break': [{ name: 'sql.plain', queue: 'a\n' }, 'ZF003', /queue name/],
    'a queue of 202 bytes': [{ name: 'sql.plain', queue: wide }, 'ZF003', /queue name/],
    'a large input': [
      { name: 'sql.plain', input: JSON.stringify('x'.repeat(1_000_000)) },
      'ZF004',
      /1000002 bytes/,
    ],
    'a priority of 101': [{ name: 'sql.plain', priority: 101 }, 'ZF005', /101/],
    'a priority of -1': [{ name: 'sql.plain', priority: -1 }, 'ZF005', /-1/],
    'an endless run_at': [{ name: 'sql.plain', run_at: 'infinity' }, 'ZF006', /run_at/],
    'a run_at long ago': [{ name: 'sql.plain', run_at: '1969-01-01' }, 'ZF006', /run_at/],
    'a run_at for what is debounced': [{ name: 'sql.debounced', run_at: '2031-01-01' }, 'ZF006', /no run_at/],
    'a key that nothing wants': [{ name: 'sql.plain', key: 'k' }, 'ZF006', /takes no key/],
    'an empty key': [{ name: 'sql.keyed', key: '' }, 'ZF006', /key takes 0 bytes/],
    'a key of 202 bytes': [{ name: 'sql.keyed', key: wide }, 'ZF006', /202 bytes/],
    '21 tags': [{ name: 'sql.plain', tags: Array.from({ length: 21 }, () => 't') }, 'ZF006', /tags/],
    'a tag of null': [{ name: 'sql.plain', tags: [null] }, 'ZF006', /tags/],
    'a tag of 102 bytes': [{ name: 'sql.plain', tags: ['é'.repeat(51)] }, 'ZF006', /tags/],
    'tags of two dimensions': [{ name: 'sql.plain', tags: [['a'], ['b']] }, 'ZF006', /tags/],
  }
  it.each(Object.entries(cases))('%s', async (_, [args, code, message]) => {
    const refusal = enqueue(args)
    await expect(refusal).rejects.toMatchObject({ code, message: expect.stringMatching(message) as unknown })
    await expect(refusal).rejects.toHaveProperty('hint', expect.stringMatching(/\w+/))
  })

  it.each(['{}', '7', 'null', null])('inputs that are no list: %s', async (inputs) => {
    await expect(
      database.query(`select forge.enqueue_many('sql.plain', $1)`, [inputs]),
    ).rejects.toMatchObject({ code: 'ZF006' })
  })

  it('more than 100,000 inputs', async () => {
    await expect(
      database.query(
        `select forge.enqueue_many('sql.plain', (select jsonb_agg(0) from generate_series(1, 100001)))`,
      ),
    ).rejects.toMatchObject({ code: 'ZF006', message: expect.stringMatching(/100001/) as unknown })
  })
})

describe('a worker', () => {
  it('finds what SQL enqueued by polling, at its time, and at once with wake', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('sql.found', { queue: 'sql.found', run: (input: { n: number }) => input.n })
    await using worker = await attach()
    const done = (id: string) =>
      until(async () => (await worker.jobs.get(id))?.state === 'completed', { label: 'done' })
    await done(await enqueue({ name: 'sql.found', input: '{"n": 1}' }))
    const since = performance.now()
    await done(await enqueue({ name: 'sql.found', input: '{"n": 2}', wake: true }))
    expect(performance.now() - since).toBeLessThan(2_500)
    const at = new Date(Date.now() + 7_000)
    const later = await enqueue({ name: 'sql.found', input: '{"n": 3}', run_at: at, wake: true })
    await done(later)
    expect((await worker.jobs.get(later))?.finishedAt?.getTime()).toBeGreaterThanOrEqual(at.getTime())
    expect(job.name).toBe('sql.found')
  })

  it('is told by wake alone, in the message that nodes send, also in a schema of a long name', async () => {
    // Its schema is made here, which takes the owner.
    const schema = `long_${'x'.repeat(55)}`
    const { forge, attach } = setup(database, { options: '' })
    forge.job('sql.wake', { queue: 'sql.wake', run: () => null })
    await using _node = await attach({ schema, roles: ['gateway'] })
    const channel =
      `forge_${schema}`.slice(0, 46) + '_' + createHash('sha256').update(schema).digest('hex').slice(0, 16)
    const listener = await database.pool({ max: 1 }).connect()
    const heard: string[] = []
    listener.on('notification', ({ payload }) => {
      if (payload?.includes('"sql"')) heard.push(payload)
    })
    await listener.query(`listen ${channel}`)
    const call = (more: string) =>
      database.query<{ id: string }>(`select ${schema}.enqueue('sql.wake', '{}'${more}) as id`)
    await call('')
    const [now] = await call(', wake => true')
    await call(`, run_at => now() + interval '1 day', wake => true`)
    await until(() => heard.length === 2, { label: 'both are heard' })
    const [row] = await database.query<{ due: string; lane: number }>(
      `select floor(extract(epoch from due))::text as due, lane from ${schema}.job where id = $1`,
      [now?.id],
    )
    expect(heard.map((message) => [...(decodeHints(message, 'me') ?? [])])).toEqual([
      [['jobs.ready', [`${row?.lane}@${row?.due}`]]],
      [['jobs.later', [String(row?.lane)]]],
    ])
    listener.release(true)
  })

  it('discards an input that the schema refuses', async () => {
    const { forge, attach } = setup(database)
    forge.job('sql.schema', { queue: 'sql.schema', input: z.object({ n: z.number() }), run: () => null })
    await using worker = await attach()
    const id = await enqueue({ name: 'sql.schema', input: '{"n": "seven"}', wake: true })
    await until(async () => (await worker.jobs.get(id))?.state === 'discarded', { label: 'it is discarded' })
    expect((await worker.jobs.get(id))?.errors[0]).toMatchObject({ code: 'FORGE_INPUT_INVALID' })
  })
})

describe('the catalogue', () => {
  const entry = async (name: string) =>
    (
      await database.query<Record<string, unknown>>('select * from forge.job_definition where name = $1', [
        name,
      ])
    )[0]

  it('has what definitions say, at attach and when they are made later', async () => {
    const { forge, attach } = setup(database)
    forge.job('cat.first', {
      queue: 'q',
      priority: 7,
      retry: { attempts: 2 },
      capability: 'gpu',
      run: () => null,
    })
    await using _node = await attach({ roles: ['gateway'] })
    expect(await entry('cat.first')).toMatchObject({
      ...{ version: 1, queue: 'q', priority: 7, attempts: 2, capability: 'gpu', unique_mode: null },
      ...{ unique_keyed: false, concurrency_limit: null, rate_limit: null, rate_per_ms: null },
    })
    forge.job('cat.later', {
      unique: { by: (_: unknown) => 'k', for: '5m', onConflict: 'debounce', maxWait: '1h' },
      run: () => null,
    })
    const later = await until(() => entry('cat.later'), { label: 'it is written' })
    expect(later).toMatchObject({
      ...{
        unique_mode: 'debounce',
        unique_keyed: true,
        unique_for_ms: '300000',
        unique_max_wait_ms: '3600000',
      },
    })
  })

  it('is written only when something differs, and an older version leaves it alone', async () => {
    const attachOnce = async (priority: number): Promise<void> => {
      const { forge, attach } = setup(database)
      forge.job('cat.same', { priority, run: () => null })
      await (await attach({ roles: ['gateway'] })).stop()
    }
    const version = async () =>
      (
        await database.query<{ v: string }>(
          `select xmin::text || '/' || ctid as v from forge.job_definition where name = 'cat.same'`,
        )
      )[0]?.v
    await attachOnce(10)
    const first = await version()
    await attachOnce(10)
    expect(await version()).toBe(first)
    await attachOnce(20)
    expect(await entry('cat.same')).toMatchObject({ priority: 20 })
    await database.query(`update forge.job_definition set version = 2 where name = 'cat.same'`)
    await attachOnce(30)
    expect(await entry('cat.same')).toMatchObject({ priority: 20, version: 2 })
  })
})
