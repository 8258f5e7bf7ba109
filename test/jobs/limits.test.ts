import { expect, describe, it } from 'vitest'
import type { AttachOptions } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { keys, limitKit, most, ratesOf } from './limits-kit.js'

const database = useDatabase()
const { twoNodes, free } = limitKit(database)

type Input = { key: string }
const byKey = (input: Input): string => input.key

describe('a limit on how many run at once', () => {
  it('holds over all nodes, and is used to the full', async () => {
    const { one, two, done } = await twoNodes({ concurrency: { limit: 3 } })
    await Promise.all([one.enqueueMany(keys(60, 1)), ...keys(20, 1).map((input) => two.enqueue(input))])
    expect(most(await done(80))).toBe(3)
  })

  it('holds for each key', async () => {
    const { one, two, done } = await twoNodes({ concurrency: { limit: 2, by: byKey } })
    await Promise.all([one.enqueueMany(keys(60, 4)), ...keys(20, 4).map((input) => two.enqueue(input))])
    const spans = await done(80)
    for (const key of ['k0', 'k1', 'k2', 'k3']) expect(most(spans.filter((span) => span.key === key))).toBe(2)
    expect(most(spans)).toBeGreaterThan(4)
  })

  it('holds for a queue, also for what a node enqueues that has no such option', async () => {
    const { one, two, done } = await twoNodes({}, (name) => [{ queues: { [name]: { limit: 2 } } }, {}])
    await Promise.all([one.enqueueMany(keys(30, 1)), ...keys(20, 1).map((input) => two.enqueue(input))])
    expect(most(await done(50))).toBe(2)
  })

  it('holds for jobs that come later, and in a transaction of the caller only from its commit', async () => {
    const { one, two, attached, done, spans } = await twoNodes({ concurrency: { limit: 1 } })
    await attached[0]?.transaction(async (tx) => {
      await one.enqueueMany(keys(5, 1), { tx })
      await two.enqueue({ key: 'first' })
      await until(async () => (await spans()).length === 1, { label: 'the other job is done' })
    })
    await two.enqueueMany(keys(5, 1), { delay: '100ms' })
    expect(most(await done(11))).toBe(1)
  })
})

describe('a rate', () => {
  it('is exact in any window, over all nodes', async () => {
    const { name, one, two, done } = await twoNodes({ rate: { limit: 5, per: '300ms' } })
    await Promise.all([one.enqueueMany(keys(15, 1)), ...keys(10, 1).map((input) => two.enqueue(input))])
    await done(25)
    const times = (await ratesOf(database, `r/${name}`)).flatMap(({ at, taken }) =>
      Array<number>(taken).fill(at),
    )
    expect(times).toHaveLength(25)
    const gaps = times.slice(5).map((at, index) => at - (times[index] as number))
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(300)
    // And no more than that is waited, by far: 25 jobs are four windows.
    expect((times.at(-1) as number) - (times[0] as number)).toBeLessThan(5 * 1_200)
  })

  it('holds for each key apart', async () => {
    const { name, one, done } = await twoNodes({ rate: { limit: 1, per: '400ms', by: byKey } })
    await one.enqueueMany(keys(9, 3))
    await done(9)
    for (const key of ['k0', 'k1', 'k2']) {
      const times = (await ratesOf(database, `r/${name}=${key}`)).map(({ at }) => at)
      expect(times).toHaveLength(3)
      expect(
        Math.min(...times.slice(1).map((at, index) => at - (times[index] as number))),
      ).toBeGreaterThanOrEqual(400)
    }
  })

  it('counts a retry as another run', async () => {
    const { name, one, done } = await twoNodes({
      rate: { limit: 1, per: '300ms' },
      retry: { base: '1ms', jitter: 0 },
      fails: 2,
    })
    await one.enqueue({ key: 'again' })
    await done(1)
    const times = (await ratesOf(database, `r/${name}`)).map(({ at }) => at)
    expect(times).toHaveLength(3)
    expect((times[2] as number) - (times[0] as number)).toBeGreaterThanOrEqual(600)
  })
})

it('all kinds of limit hold together, whatever comes in from wherever, and nobody waits for each other', async () => {
  const options = (name: string): AttachOptions[] => [
    { queues: { [name]: { limit: 6, concurrency: 20 } } },
    { queues: { [name]: { concurrency: 20 } } },
  ]
  const definition = {
    concurrency: { limit: 2, by: byKey },
    rate: { limit: 40, per: '200ms', by: (input: Input) => `r${Number(input.key.slice(1)) % 3}` },
  }
  const { name, one, two, done } = await twoNodes(definition, options)
  await Promise.all([
    one.enqueueMany(keys(100, 20)),
    two.enqueueMany(keys(100, 20)),
    ...keys(100, 20).map((input, i) => (i % 2 ? one : two).enqueue(input)),
  ])
  const spans = await done(300)
  expect(most(spans)).toBeLessThanOrEqual(6)
  expect(most(spans)).toBeGreaterThan(2)
  for (const { key } of keys(20, 20))
    expect(most(spans.filter((span) => span.key === key))).toBeLessThanOrEqual(2)
  for (const gate of [0, 1, 2].map((key) => `r/${name}=r${key}`)) {
    const times = (await ratesOf(database, gate)).flatMap(({ at, taken }) => Array<number>(taken).fill(at))
    const gaps = times.slice(40).map((at, index) => at - (times[index] as number))
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(200)
  }
  const [stats] = await database.query<{ deadlocks: string }>(
    'select deadlocks from pg_stat_database where datname = current_database()',
  )
  expect(stats?.deadlocks).toBe('0')
  expect(await free(`q/${name}`)).toBe(6)
  expect(await free(`c/${name}=k1`)).toBe(2)
}, 60_000)

describe('between keys', () => {
  it('many old jobs of one key do not stand before a new one of another at the limit that they share', async () => {
    const { one, done, attached } = await twoNodes({ concurrency: { limit: 1, by: byKey } }, (name) => [
      { queues: { [name]: { limit: 2 } } },
      {},
    ])
    await one.enqueueMany(Array.from({ length: 200 }, (_, i) => ({ key: i % 2 ? 'hog' : 'boar' })))
    await until(async () => ((await attached[0]?.jobs.counts())?.completed ?? 0) > 10, {
      label: 'the hogs run',
    })
    const before = (await done(1)).length
    await one.enqueue({ key: 'small' })
    const spans = await done(201)
    const place = spans.findIndex(({ key }) => key === 'small')
    expect(place).toBeGreaterThanOrEqual(before)
    // Two hold the places and two may stand before it; the rest of the margin is what ran until it was enqueued.
    expect(place - before).toBeLessThan(40)
  }, 60_000)
})
