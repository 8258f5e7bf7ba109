import { randomUUID } from 'node:crypto'
import { afterAll, describe, expect, it } from 'vitest'
import type { AttachOptions, ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const nodes: ForgeNode[] = []
afterAll(async () => {
  for (const node of nodes) await node.stop({ timeout: 0 })
})

interface Span {
  readonly key: string
  readonly began: number
  readonly ended: number
}

/** The most spans that overlap, by the database's clock. */
function most(spans: readonly Span[]): number {
  const edges = spans.flatMap(({ began, ended }) => [
    { at: began, step: 1 },
    { at: ended, step: -1 },
  ])
  let [now, peak] = [0, 0]
  for (const { step } of edges.sort((a, b) => a.at - b.at || a.step - b.step))
    peak = Math.max(peak, (now += step))
  return peak
}

/** Two nodes of one job, each as a process of its own would be, and a table in which every run notes begin and end. */
async function twoNodes(definition: Record<string, unknown>, options: AttachOptions = {}) {
  const name = `job.${randomUUID()}`
  await database.query(
    `create table if not exists span (name text, key text, began timestamptz, ended timestamptz);
     grant all on span to public`,
  )
  const recorder = database.pool({ max: 10 })
  const bundles = [setup(database), setup(database)]
  const jobs = bundles.map(({ forge }) =>
    forge.job(name, {
      queue: name,
      ...definition,
      async run(input: { key: string }) {
        const { rows } = await recorder.query<{ at: string }>('select clock_timestamp()::text as at')
        await recorder.query('select pg_sleep(0.005)')
        await recorder.query('insert into span values ($1, $2, $3, clock_timestamp())', [
          name,
          input.key,
          rows[0]?.at,
        ])
      },
    }),
  )
  const attached = await Promise.all(bundles.map(({ attach }) => attach(options)))
  nodes.push(...attached)
  const spans = () =>
    database.query<Span & { ended: number }>(
      `select key, extract(epoch from began)::float8 * 1000 as began, extract(epoch from ended)::float8 * 1000 as ended
       from span where name = $1 order by began`,
      [name],
    )
  const done = async (n: number): Promise<Span[]> => {
    await until(async () => (await spans()).length >= n, {
      label: `${n} jobs of ${name} are done`,
      deadlineMs: 60_000,
    })
    return spans()
  }
  const [one, two] = jobs
  if (!one || !two) throw new Error('two jobs')
  return { name, one, two, attached, done, spans }
}

const keys = (n: number, of: number) => Array.from({ length: n }, (_, i) => ({ key: `k${i % of}` }))

describe('a limit on how many run at once', () => {
  it('holds over all nodes, and is used to the full', async () => {
    const { one, two, done } = await twoNodes({ concurrency: { limit: 3 } })
    await Promise.all([one.enqueueMany(keys(60, 1)), ...keys(20, 1).map((input) => two.enqueue(input))])
    expect(most(await done(80))).toBe(3)
  })

  it('holds for each key', async () => {
    const { one, two, done } = await twoNodes({
      concurrency: { limit: 2, by: (input: { key: string }) => input.key },
    })
    await Promise.all([one.enqueueMany(keys(60, 4)), ...keys(20, 4).map((input) => two.enqueue(input))])
    const spans = await done(80)
    for (const key of ['k0', 'k1', 'k2', 'k3']) expect(most(spans.filter((span) => span.key === key))).toBe(2)
    expect(most(spans)).toBeGreaterThan(4)
  })
})
