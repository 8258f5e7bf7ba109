import { createRequire } from 'node:module'
import pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startProxy } from '../../src/testing/index.js'
import { silentLogger } from '../../src/kernel/index.js'
import { addressOf } from '../chaos/fleet.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'

const database = useDatabase()
/** More than `enqueueMany` inserts row by row; the server gets them by COPY. */
const n = 1_200

function copyOfPg(): pg.Pool {
  const require = createRequire(import.meta.url)
  const loaded = { ...require.cache }
  for (const path of Object.keys(require.cache)) if (/[/]pg[/]lib[/]/.test(path)) delete require.cache[path]
  const other = require('pg') as typeof pg
  Object.assign(require.cache, loaded)
  expect(other.Query).not.toBe(pg.Query)
  return new other.Pool({ connectionString: database.url, max: 2 })
}

function silentClients(): pg.Pool {
  class Own extends pg.Client {}
  Object.defineProperty(Own, 'Query', { value: undefined })
  return new pg.Pool({ connectionString: database.url, max: 2, Client: Own })
}

describe('a large bulk call', () => {
  it('stores each input as it was given', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('copied', { queue: 'copied', run: () => null })
    await using node = await attach({ queues: { copied: false } })
    const hostile = [
      '\\.',
      '\\N',
      'a\tb',
      'a\nb',
      'a\r\nb',
      '\\\\n',
      '"',
      '🦋',
      'é\\',
      '{"a":"\\u0041"}',
      '\b\f\v',
    ]
    const inputs = Array.from({ length: n }, (_, i) => ({ i, text: hostile[i % hostile.length] }))
    const handles = await job.enqueueMany(inputs)
    const { rows } = await setup(database).pool.query<{ id: string; input: unknown }>(
      'select j.id, j.input from forge.job j join forge.job_lane l on l.id = j.lane where l.name = $1',
      ['copied'],
    )
    const stored = new Map(rows.map(({ id, input }) => [id, input]))
    expect(handles.map(({ id }) => stored.get(id))).toEqual(inputs)
    expect(handles.every(({ created }) => created)).toBe(true)
    expect((await node.jobs.counts()).available).toBe(n)
  })

  it.each([
    { delay: '1h' },
    { runAt: new Date('2100-01-01T00:00:00.123Z') },
    { priority: 'high' },
    {},
  ] as const)('stands as one by one with %j', async (options) => {
    const { forge, attach } = setup(database)
    const job = forge.job('timed', { queue: 'timed', retry: { attempts: 7 }, run: () => null })
    await using _node = await attach({ queues: { timed: false } })
    const [first] = await job.enqueueMany(
      Array.from({ length: n }, () => null),
      options,
    )
    const one = await job.enqueue(null, options)
    const rows = await database.query<Record<string, unknown>>(
      `select state, stage, priority, attempts_max, gate, gates, tags, parent, input, run_at,
                extract(epoch from due - run_at)::int as behind, run_at > now() + interval '59 minutes' as later
         from forge.job where id = any ($1::uuid[]) order by id`,
      [[first?.id, one.id]],
    )
    const [many, single] = rows.map(({ run_at: _, ...rest }) => rest)
    expect(many).toEqual(single)
    if ('runAt' in options) for (const { run_at } of rows) expect(run_at).toEqual(options.runAt)
  })

  it('starts at once on another node, which hears of it', async () => {
    const [here, there] = [setup(database), setup(database)]
    const job = here.forge.job('heard', { run: (i: number) => i })
    there.forge.job('heard', { run: (i: number) => i })
    await using _gateway = await here.attach({ roles: ['gateway'] })
    await using _worker = await there.attach()
    const handles = await job.enqueueMany(Array.from({ length: n }, (_, i) => i))
    const since = performance.now()
    expect(await handles[0]?.result({ timeout: '20s' })).toBe(0)
    // By its own look, every 5 s, it would come to it later.
    expect(performance.now() - since).toBeLessThan(4_000)
  })

  it.each([
    ['in the middle of its rows', { match: 'copy "forge".job', bytes: 20_000 }],
    ['before the answer to its commit', { match: 'commit\0' }],
  ])('is made once when the connection breaks %s', async (_, where) => {
    await using proxy = await startProxy({ target: addressOf(database.url) })
    const { forge, attach } = setup(database, { connectionString: proxy.url(database.url) })
    const job = forge.job('cut', { queue: 'cut', run: () => null })
    await using node = await attach({ queues: { cut: false } })
    await job.enqueue({})
    const before = (await node.jobs.counts()).available
    const only = ({ applicationName }: { applicationName?: string | undefined }): boolean =>
      applicationName === 'forge:control'
    const cut = proxy.cutAfterBytes({ direction: 'toServer', only, ...where })
    const handles = await job.enqueueMany(Array.from({ length: n }, (_, i) => ({ i })))
    await cut.happened({ deadlineMs: 5_000 })
    expect(handles.every(({ created }) => created)).toBe(true)
    expect((await node.jobs.counts()).available - before).toBe(n)
  })

  it('is refused as a whole by the server, and the next call is none the worse', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('refused', { queue: 'refused', run: () => null })
    await using node = await attach({ queues: { refused: false } })
    await database.query(`alter table forge.job add constraint no_900 check (input <> '900') not valid`)
    const inputs = Array.from({ length: n }, (_, i) => i)
    const before = (await node.jobs.counts()).available
    await expect(job.enqueueMany(inputs)).rejects.toMatchObject({ code: '23514' })
    expect((await node.jobs.counts()).available).toBe(before)
    await database.query('alter table forge.job drop constraint no_900')
    await job.enqueueMany(inputs)
    expect((await node.jobs.counts()).available).toBe(before + n)
  })

  it.each([
    { of: 'another copy of pg', make: copyOfPg },
    { of: 'a class that tells nothing of its queries', make: silentClients },
  ])('goes over the clients of a host, of $of', async ({ make }) => {
    const pool = make()
    onTestFinished(() => pool.end())
    const { forge } = setup(database)
    const job = forge.job('foreign', { queue: 'foreign', run: () => null })
    await using _node = await forge.attach(null, pool, { queues: { foreign: false }, logger: silentLogger })
    const handles = await job.enqueueMany(Array.from({ length: n }, (_, i) => ({ i })))
    const ids = handles.map(({ id }) => id)
    expect(await database.query('select from forge.job where id = any ($1::uuid[])', [ids])).toHaveLength(n)
  })
})
