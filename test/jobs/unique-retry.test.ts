import { expect, it } from 'vitest'
import type { Duration, OnConflict } from '../../src/index.js'
import { markClaimed } from '../support/claimed.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

interface Shape {
  readonly onConflict?: OnConflict
  readonly for?: Duration
}

/** A unique job on a node that runs nothing. */
async function unique(name: string, shape: Shape = {}) {
  const { forge, attach, pool } = setup(database)
  const job = forge.job(name, {
    unique: { by: (input: string) => input.slice(0, 1), ...shape },
    run: () => null,
  })
  const node = await attach({ roles: ['gateway'] })
  const ended = async (input: string): Promise<string> => {
    const { id } = await job.enqueue(input)
    await node.jobs.discard(id)
    return id
  }
  return { node, job, pool, ended }
}

const over = (name: string): Promise<unknown> =>
  database.query(`update forge.job_unique set expires_at = now() where scope = $1`, [name])

const taken = (id: string, holder: string) => ({
  ids: [],
  skipped: [],
  refused: [{ id, code: 'FORGE_KEY_TAKEN', message: expect.stringContaining(holder) as string }],
})

it('of a job whose key another job holds is refused and names that one; the rest comes back', async () => {
  const { node, job, ended } = await unique('held')
  await using _node = node
  const a = await ended('a')
  const other = await ended('b')
  const holder = (await job.enqueue('a')).id
  expect(await node.jobs.retry([a, other])).toEqual({
    ...taken(a, holder),
    ids: [other],
    matching: 2,
    more: false,
  })
  expect((await node.jobs.get(a))?.state).toBe('discarded')
  expect(await node.jobs.retry({ name: 'held' })).toMatchObject(taken(a, holder))
  expect(await database.query(`select from forge.job where unique_key = 'a'`)).toHaveLength(1)
})

it('takes a free key again, whether it was forgotten or another job had it meanwhile', async () => {
  const { node, job, ended } = await unique('free')
  await using _node = node
  const [a, forgotten] = [await ended('a'), await ended('b')]
  await ended('a')
  await database.query(`delete from forge.job_unique where scope = 'free' and key = 'b'`)
  expect((await node.jobs.retry([a, forgotten])).ids).toEqual([a, forgotten])
  for (const [input, id] of [
    ['a', a],
    ['b', forgotten],
  ] as const)
    expect(await job.enqueue(input)).toMatchObject({ id, reason: 'duplicate' })
  await node.jobs.cancel(a)
  expect((await job.enqueue('a')).created).toBe(true)
})

it('of several with one key brings back the one that had it last', async () => {
  const { node, ended } = await unique('several')
  await using _node = node
  const [first, last] = [await ended('a'), await ended('a')]
  const changed = await node.jobs.retry({ name: 'several' })
  expect(changed).toMatchObject({ ...taken(first, last), ids: [last], matching: 2 })
})

it('knows the key of a job that used up its attempts, also where it is a hash', async () => {
  const { forge, attach } = setup(database)
  const job = forge.job('hashed', {
    unique: {},
    retry: { attempts: 1 },
    run: () => Promise.reject(new Error('no')),
  })
  await using node = await attach()
  const { id } = await job.enqueue({ n: 1 })
  await until(async () => (await node.jobs.get(id))?.state === 'discarded', { label: 'it is given up' })
  const holder = (await job.enqueue({ n: 1 }, { delay: '1h' })).id
  expect(await node.jobs.retry(id)).toMatchObject(taken(id, holder))
})

it('with `for` is refused while the key is taken, finished or not, and then holds it for that long', async () => {
  const { node, job, ended } = await unique('window', { for: '1h' })
  await using _node = node
  const a = await ended('a')
  await over('window')
  const b = await ended('a')
  expect(await node.jobs.retry(a)).toMatchObject(taken(a, b))
  // Its own time does not stand in its way.
  expect((await node.jobs.retry(b)).ids).toEqual([b])
  await over('window')
  expect((await node.jobs.retry(a)).ids).toEqual([a])
  expect(await job.enqueue('a')).toMatchObject({ id: a, reason: 'duplicate' })
})

it('of a debounced job is refused while another is put off, and not when that one is finished', async () => {
  const { node, job, ended } = await unique('quiet', { for: '1h', onConflict: 'debounce' })
  await using _node = node
  const a = await ended('a1')
  const b = (await job.enqueue('a2')).id
  await over('quiet')
  expect(await node.jobs.retry(a)).toMatchObject(taken(a, b))
  await node.jobs.cancel(b)
  expect((await node.jobs.retry(a)).ids).toEqual([a])
  expect(await job.enqueue('a3')).toMatchObject({ id: a, reason: 'debounced' })
})

it('waits for a transaction that takes the key, and enqueues do not wait with it', async () => {
  const { node, job, pool, ended } = await unique('race')
  await using _node = node
  const a = await ended('a')
  const client = await pool.connect()
  await client.query('begin')
  const holder = (await job.enqueue('a', { tx: client })).id
  const changed = node.jobs.retry(a)
  const waits = `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
  await until(async () => (await database.query(waits)).length > 0, { label: 'the retry waits' })
  expect((await job.enqueue('b')).created).toBe(true)
  await client.query('commit')
  client.release()
  expect(await changed).toMatchObject(taken(a, holder))
})

it('asks for no key where the definition is not unique any more', async () => {
  const { node, job, ended } = await unique('plain.now')
  const a = await ended('a')
  await job.enqueue('a')
  await node.stop()
  const now = setup(database)
  now.forge.job('plain.now', { run: () => null })
  await using later = await now.attach({ roles: ['gateway'] })
  expect((await later.jobs.retry(a)).ids).toEqual([a])
})

it('knows the key of a job that was set aside', async () => {
  const { forge, attach } = setup(database)
  const job = forge.job('aside', { queue: 'aside', unique: {}, run: () => null })
  const first = await attach({ roles: ['gateway'] })
  const { id } = await job.enqueue('a')
  await first.stop()
  await markClaimed(database, [id], { agoMs: 60_000, set: { crashes: 2 } })
  await using node = await attach({ queues: { aside: false } })
  await until(async () => (await node.jobs.get(id))?.state === 'quarantined', { label: 'it is set aside' })
  const holder = (await job.enqueue('a')).id
  expect(await node.jobs.retry(id)).toMatchObject(taken(id, holder))
})
