/*
 * The load run: places orders over HTTP, kills the worker with SIGKILL in the middle, starts another one, waits until
 * every job is done, and counts. forge runs at its default settings, lease included; only the invoices are drawn
 * faster than in the demo, and each queue may run more jobs at once.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { forge, type Job, type ForgeNode } from 'forge'
import pg from 'pg'
import { Child } from './child.ts'
import { type Acknowledged, orderSomething } from './customers.ts'
import { openFreshDatabase } from './database.ts'
import { onStage } from './ending.ts'
import { isGood, type Killed, readResult, show } from './report.ts'

const customersAtOnce = 16
const doneMsMax = 120_000
const idsAtOnce = 200
const settings = { FORGE_CONCURRENCY: '25', STOREFRONT_INVOICE_MS: '300' }
const final = new Set<Job['state']>(['completed', 'cancelled', 'discarded', 'quarantined'])

const { values: options } = parseArgs({ options: { orders: { type: 'string', default: '1000' } } })
const wanted = Number(options.orders)

await onStage(async (stage, ending) => {
  if (!Number.isInteger(wanted) || wanted < 2) throw new Error('--orders takes a whole number from 2')
  const database = await openFreshDatabase(stage)
  ending.throwIfAborted()
  const env = { DATABASE_URL: database.url, PORT: '0', ...settings }
  const worker = stage.use(new Child('worker', env))
  const web = stage.use(new Child('web', env))
  const [{ port }] = await Promise.all([web.ready(), worker.ready()])
  ending.throwIfAborted()
  const { pool, node } = await look(stage, database.url)
  console.log(`Placing ${wanted} orders, ${customersAtOnce} customers at once, in ${database.about}`)

  let reachMiddle = (): void => {}
  const middle = new Promise<void>((resolve) => (reachMiddle = resolve))
  const startedAt = performance.now()
  const [placed, killed] = await Promise.all([
    placeOrders(`http://127.0.0.1:${port}`, { ending, onMiddle: () => reachMiddle() }),
    middle.then(async () => {
      const killed = await killWorker(worker, pool)
      stage.use(new Child('worker', env))
      return killed
    }),
  ])
  console.log(`${placed.orders.length} acknowledged; waiting for their jobs`)
  const jobs = await waitUntilDone(node, {
    ids: placed.orders.flatMap((order) => Object.values(order.jobs)),
    ending,
  })
  const totalMs = performance.now() - startedAt
  const result = await readResult(pool, { ...placed, wanted, killed, totalMs, jobs })
  show(result)
  if (!isGood(result)) process.exitCode = 1
})

/** A node of this process, which runs nothing: it asks forge what became of the jobs. */
async function look(stage: AsyncDisposableStack, url: string): Promise<{ pool: pg.Pool; node: ForgeNode }> {
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  stage.defer(() => pool.end())
  return { pool, node: stage.use(await forge.attach(null, pool, { roles: ['gateway'], logger: false })) }
}

interface Placed {
  readonly orders: readonly Acknowledged[]
  readonly refused: number
  readonly placedMs: number
}

async function placeOrders(
  url: string,
  { ending, onMiddle }: { readonly ending: AbortSignal; readonly onMiddle: () => void },
): Promise<Placed> {
  const startedAt = performance.now()
  const orders: Acknowledged[] = []
  let [begun, refused] = [0, 0]
  const customer = async (): Promise<void> => {
    while (begun++ < wanted && !ending.aborted) {
      const order = await orderSomething(url).catch(() => null)
      if (order) orders.push(order)
      else refused += 1
      if (orders.length + refused === Math.floor(wanted / 2)) onMiddle()
    }
  }
  await Promise.all(Array.from({ length: customersAtOnce }, customer))
  return { orders, refused, placedMs: performance.now() - startedAt }
}

async function killWorker(worker: Child, pool: pg.Pool): Promise<Killed> {
  const { rows } = await pool.query<{ now: Date }>('select clock_timestamp() as now')
  worker.kill()
  await worker.exited
  return { pid: worker.pid, at: (rows[0] as { now: Date }).now }
}

/** The jobs as they ended; after two minutes, as they stand. A job that forge does not know is not among them. */
async function waitUntilDone(
  node: ForgeNode,
  { ids, ending }: { readonly ids: readonly string[]; readonly ending: AbortSignal },
): Promise<Job[]> {
  const giveUpAt = performance.now() + doneMsMax
  const done: Job[] = []
  for (let open = ids; ;) {
    const unfinished: Job[] = []
    for (let from = 0; from < open.length; from += idsAtOnce) {
      const some = open.slice(from, from + idsAtOnce)
      for (const job of await node.jobs.list({ ids: some, limit: idsAtOnce })) {
        if (final.has(job.state)) done.push(job)
        else unfinished.push(job)
      }
    }
    if (unfinished.length === 0 || performance.now() > giveUpAt) return [...done, ...unfinished]
    open = unfinished.map((job) => job.id)
    await pause(250, undefined, { signal: ending })
  }
}
