import { expect, it } from 'vitest'
import type { JobHandle } from '../../src/index.js'
import { deferred } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { firstSeed, randomFrom } from '../testing/random.js'

const database = useDatabase()
const priorities = ['background', 'low', 'normal', 'high', 'critical'] as const

/** A worker with one slot that says what it starts, and the first job of which holds the slot until it is let go. */
async function heldWorker(started: string[]) {
  const { forge, attach } = setup(database)
  const go = deferred<undefined>()
  const queue = 'court'
  const run = (_: unknown, { id }: { readonly id: string }): null => (started.push(id), null)
  const flop = { attempts: 2, backoff: () => '1h' as const }
  const jobs = {
    plug: forge.job('plug', { queue, run: () => go.promise }),
    plain: forge.job('plain', { queue, run }),
    other: forge.job('other', { queue, run }),
    gated: forge.job('gated', { queue, concurrency: { limit: 2 }, run }),
    flop: forge.job('flop', { queue: 'flops', retry: flop, run: () => Promise.reject(new Error('no')) }),
  }
  const node = await attach({ roles: ['worker', 'gateway'], concurrency: 1 })
  return { jobs, node, letGo: () => go.resolve(undefined) }
}

/** What the worker does not know, and what it may not do. */
async function foreigner() {
  const { forge, attach } = setup(database)
  const jobs = {
    foreign: forge.job('foreign', { queue: 'court', run: () => null }),
    capable: forge.job('capable', { queue: 'court', capability: 'gpu', run: () => null }),
  }
  return { jobs, node: await attach({ roles: ['gateway'] }) }
}

it('explain agrees with the claim: who runs next, who after whom, and who not at all', async () => {
  const seed = firstSeed()
  const random = randomFrom(seed)
  const started: string[] = []
  const { jobs, node, letGo } = await heldWorker(started)
  await using _node = node
  const elsewhere = await foreigner()
  await using _elsewhere = elsewhere.node
  await node.queues.pause('closed')
  const ids: string[] = []
  const put = async (handle: Promise<JobHandle<unknown>>): Promise<void> => void ids.push((await handle).id)
  const flop = await jobs.flop.enqueue({})
  ids.push(flop.id)
  await until(async () => (await node.jobs.get(flop.id))?.state === 'retryable', { label: 'it failed once' })
  const plug = await jobs.plug.enqueue({})
  await until(async () => (await node.jobs.get(plug.id))?.state === 'running', { label: 'the slot is held' })

  const kinds = [
    ...Array.from({ length: 40 }, () => random.pick(['plain', 'other'] as const)),
    ...([
      'gated',
      'gated',
      'gated',
      'gated',
      'foreign',
      'foreign',
      'capable',
      'closed',
      'closed',
      'later',
    ] as const),
  ]
  for (const kind of random.shuffle(kinds)) {
    const priority = random.pick(priorities)
    if (kind === 'foreign' || kind === 'capable') await put(elsewhere.jobs[kind].enqueue({}, { priority }))
    else if (kind === 'closed') await put(jobs.plain.enqueue({}, { priority, queue: 'closed' }))
    else if (kind === 'later') await put(jobs.plain.enqueue({}, { priority, delay: '1h' }))
    else await put(jobs[kind].enqueue({}, { priority }))
  }
  const suspect = (await jobs.plain.enqueue({})).id
  await database.query('update forge.job set crashes = 2 where id = $1', [suspect])

  const places = await database.query<{ id: string; lane: number; due: number }>(
    `select id, lane, extract(epoch from due)::float8 as due from forge.job`,
  )
  const placeOf = new Map(places.map((place) => [place.id, place]))
  const said = await Promise.all(
    ids.map(async (id) => ({
      ...(placeOf.get(id) as (typeof places)[number]),
      ...(await node.jobs.explain(id)),
    })),
  )
  const having = (...because: readonly string[]) => said.filter((each) => because.includes(each.because))
  const line = having('next', 'outranked').sort((a, b) => (a.ahead ?? 0) - (b.ahead ?? 0))
  expect(line.map(({ ahead }) => ahead)).toEqual(Array.from({ length: 42 }, (_, index) => index))
  expect(line.filter(({ because }) => because === 'next')).toHaveLength(1)
  expect((await node.jobs.explain(suspect)).because).toBe('next')
  const counts = ['gate', 'unserved', 'paused', 'scheduled', 'retrying'].map((each) => having(each).length)
  expect(counts).toEqual([2, 3, 2, 1, 1])

  letGo()
  await until(() => started.length >= 45, { label: 'all that can run has run' })
  // One more, the least urgent: what was held back wrongly would come before it.
  const last = await jobs.plain.enqueue({}, { priority: 'background' })
  await last.result()
  const runnable = new Set([...line, ...having('gate')].map(({ id }) => id)).add(suspect).add(last.id)
  expect(new Set(started), `FORGE_TEST_SEED=${seed}`).toEqual(runnable)
  const ran = started.flatMap((id) => line.find((each) => each.id === id) ?? [])
  for (const [at, one] of ran.entries()) {
    const before = ran.slice(0, at).filter((other) => (other.ahead ?? 0) > (one.ahead ?? 0))
    // Between names the order is exact to 3 s, within one it is exact.
    for (const other of before)
      expect([other.lane !== one.lane, other.due < one.due + 3], `FORGE_TEST_SEED=${seed}`).toEqual([
        true,
        true,
      ])
  }
  for (const { because, id } of having('unserved', 'paused', 'scheduled', 'retrying'))
    expect((await node.jobs.explain(id)).because).toBe(because)
})
