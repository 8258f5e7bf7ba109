import { randomUUID } from 'node:crypto'
import { beforeAll, expect, it } from 'vitest'
import { createForge } from '../../src/index.js'
import { checkHistory, type NodeProcess } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { findIp, Namespace } from './namespace.js'
import { isAbout, long, startNode, stopNode } from './nodes.js'
import { installRecorder, readRecording } from './recorder.js'
import type { ChaosInput } from './worker.js'

const database = useDatabase()
const ip = findIp()
const rounds = long ? 5 : 1
/** The long form runs at default settings. */
const lease = long ? {} : { lease: { ms: 1_500, renewMs: 300 } }

beforeAll(() => installRecorder(database.query))

const seen = async (node: NodeProcess, kind: 'started' | 'aborted', id: string): Promise<number> => {
  await node.waitForMessage((m) => isAbout(m, kind, id), { deadlineMs: 60_000 })
  return performance.now()
}

/*
 * A worker behind a wire of its own runs a job; the wire is cut, so that each of its connections is half-open at once, on
 * its side and on that of the server. Another worker takes the job over; the wire is mended, and the first works again.
 */
it.skipIf(ip === null)(
  `a node that falls off the network gives up its job before another has it, and comes back (${rounds} rounds)`,
  { timeout: 300_000 },
  async () => {
    const forge = createForge()
    const work = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
    await using producer = await forge.attach(null, database.pool(), { roles: ['gateway'], logger: false })
    await using namespace = await Namespace.make(ip as string, database.url)
    const options = {
      roles: ['worker'],
      queues: { chaos: { concurrency: 1 }, '*': false },
      ...lease,
    } as const
    await using remote = await startNode(namespace.url, { options, command: namespace.command })
    const enqueued: { id: string; acked: boolean }[] = []
    const enqueue = async (ms: number): Promise<string> => {
      const id = randomUUID()
      await work.enqueue({ ms, holdMs: 100 }, { id, queue: 'chaos' })
      enqueued.push({ id, acked: true })
      return id
    }
    const completed = (id: string): Promise<unknown> =>
      until(async () => (await producer.jobs.get(id))?.state === 'completed', {
        label: 'completed',
        deadlineMs: 60_000,
      })

    const takeovers: number[] = []
    for (let round = 0; round < rounds; round++) {
      const id = await enqueue(long ? 30_000 : 5_000)
      await seen(remote, 'started', id)
      await using local = await startNode(database.url, { options })
      const from = performance.now()
      namespace.cut()
      const [abortedAt, startedAt] = await Promise.all([
        seen(remote, 'aborted', id),
        seen(local, 'started', id),
      ])
      expect(abortedAt).toBeLessThanOrEqual(startedAt)
      takeovers.push(startedAt - from)
      await completed(id)
      expect(await stopNode(local)).toBe(0)
      namespace.heal()
      const next = await enqueue(10)
      await seen(remote, 'started', next)
      await completed(next)
    }

    const recording = await readRecording(database.query, enqueued)
    const verdict = checkHistory(recording.events, { attemptsMax: 20 })
    expect(verdict.ok, verdict.summary).toBe(true)
    expect(recording).toMatchObject({ deadClaims: 0, staleResults: 0 })
    process.stdout.write(
      `off the network: taken over after ${takeovers.map((ms) => Math.round(ms)).join(', ')} ms${long ? '' : ' with a lease of 1,500 ms'}\n`,
    )
    expect(await stopNode(remote)).toBe(0)
  },
)

it.skipIf(ip === null)(
  `a leader that falls off the network is followed in time, and writes nothing more (${rounds} rounds)`,
  { timeout: 300_000 },
  async () => {
    await database.query(
      'create table led (seq bigserial, n bigint not null, node uuid not null, at timestamptz not null default clock_timestamp())',
    )
    /** Who wrote last. */
    const writer = async (): Promise<string | undefined> =>
      (await database.query<{ node: string }>('select node from led order by n desc, seq desc limit 1'))[0]
        ?.node
    const options = { roles: ['worker'], queues: { '*': false }, ...lease } as const
    await using namespace = await Namespace.make(ip as string, database.url)
    const takeovers: number[] = []
    await using remote = await startNode(namespace.url, {
      options,
      quiet: true,
      lead: 'far',
      command: namespace.command,
    })
    const { node: far } = (await remote.ready()) as { node: string }
    for (let round = 0; round < rounds; round++) {
      await until(async () => (await writer()) === far, { label: 'the far one leads', deadlineMs: 60_000 })
      await using local = await startNode(database.url, { options, quiet: true, lead: 'far' })
      const from = performance.now()
      namespace.cut()
      await until(async () => (await writer()) !== far, { label: 'the near one leads', deadlineMs: 60_000 })
      takeovers.push(performance.now() - from)
      namespace.heal()
      expect(await stopNode(local)).toBe(0)
    }
    const late = await database.query(
      'select old.* from led old where exists (select from led new where new.n > old.n and new.at < old.at)',
    )
    expect(late).toEqual([])
    process.stdout.write(
      `a leader off the network: followed after ${takeovers.map((ms) => Math.round(ms)).join(', ')} ms${long ? '' : ' with a lease of 1,500 ms'}\n`,
    )
    // The promise is 10 s for a lease of 10 s.
    expect(Math.max(...takeovers)).toBeLessThan(long ? 10_000 : 7_500)
    expect(await stopNode(remote)).toBe(0)
  },
)
