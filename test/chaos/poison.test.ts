import { afterAll, expect, it } from 'vitest'
import { createForge, type ForgeNode, isForgeError } from '../../src/index.js'
import type { NodeProcess } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { startNode, stopNode } from './nodes.js'
import type { ChaosInput, Poison } from './worker.js'

const database = useDatabase()
const lease = { ms: 1_500, renewMs: 300 }
const poisons: readonly Poison[] = ['exit', 'abort', 'memory']
const innocents = 60
const running = new Set<NodeProcess>()
const ends: string[] = []
let stopping = false

afterAll(async () => {
  stopping = true
  for (const one of running) await one[Symbol.asyncDispose]()
})

/** As a supervisor would: a process that ends is followed by another. */
async function supervise(): Promise<void> {
  while (!stopping) {
    const node = await startNode(database.url, {
      options: { roles: ['worker'], lease, concurrency: 4 },
      quiet: true,
      execArgv: ['--max-old-space-size=64'],
    }).catch(endedAtStart)
    if (!node) continue
    running.add(node)
    if (stopping) await stopNode(node)
    const end = await node.exited
    running.delete(node)
    if (!stopping) ends.push(end.signal ?? String(end.code))
  }
}

/** Its first claim can bring the poison before the start is over. */
function endedAtStart(error: unknown): null {
  if (!isForgeError(error, 'FORGE_TEST_PROCESS_ENDED')) throw error
  ends.push('at its start')
  return null
}

async function statesOf(node: ForgeNode, ids: readonly string[]) {
  return Promise.all(ids.map(async (id) => (await node.jobs.get(id))?.state))
}

it(
  'sets jobs aside that take their process along three times, and their neighbours complete',
  { timeout: 180_000 },
  async () => {
    const forge = createForge()
    const work = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
    await using gateway = await forge.attach(null, database.pool(), { roles: ['gateway'], logger: false })
    const idsOf = (made: readonly { readonly id: string }[]): string[] => made.map(({ id }) => id)
    // Some before, some beside, some behind them.
    const some = Array.from({ length: innocents / 2 }, () => ({ ms: 20 }) as const)
    const neighbours = idsOf(await work.enqueueMany(some))
    const bad = idsOf(await work.enqueueMany(poisons.map((how) => ({ ms: 500, how }))))
    neighbours.push(...idsOf(await work.enqueueMany(some)))
    const supervised = [supervise(), supervise()]
    await until(async () => (await statesOf(gateway, bad)).every((state) => state === 'quarantined'), {
      label: 'the poison is set aside',
      deadlineMs: 120_000,
    })
    await until(async () => (await statesOf(gateway, neighbours)).every((state) => state === 'completed'), {
      label: 'the neighbours are done',
      deadlineMs: 60_000,
    })
    const crashes = await database.query<{ crashes: number; n: number }>(
      `select crashes, count(*)::int as n from forge.job_history where id = any ($1::uuid[]) group by 1`,
      [bad],
    )
    expect(crashes).toEqual([{ crashes: 3, n: poisons.length }])
    stopping = true
    await Promise.all([...running].map(stopNode))
    await Promise.all(supervised)
    // Three ends each at most: two may go with one process.
    expect(ends.length).toBeGreaterThanOrEqual(3)
    expect(ends.length).toBeLessThanOrEqual(3 * poisons.length)
    process.stdout.write(`poison: ${ends.length} processes ended (${ends.join(', ')})\n`)
  },
)
