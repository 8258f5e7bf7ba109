import type { Job } from 'forge'
import type pg from 'pg'
import type { Acknowledged } from './customers.ts'

export interface Killed {
  readonly pid: number
  /** By the database's clock, just before the kill: reruns are timed by the same clock. */
  readonly at: Date
}

export interface LoadRun {
  readonly wanted: number
  readonly orders: readonly Acknowledged[]
  /** Orders that the shop did not acknowledge: not counted on. */
  readonly refused: number
  readonly placedMs: number
  readonly totalMs: number
  readonly killed: Killed
  readonly jobs: readonly Job[]
}

/** What the tables hold, counted over all orders. */
interface Effects {
  readonly missing: number
  readonly payments: number
  readonly movements: number
  readonly invoices: number
  readonly receipts: number
  readonly stock: number
}

export interface LoadResult {
  readonly run: LoadRun
  readonly effects: Effects
  readonly enqueued: number
  readonly completed: number
  /** Jobs that the dead worker was running. */
  readonly interrupted: number
  /** From SIGKILL until another worker began one of them; null when none was begun. */
  readonly rerunMs: number | null
}

const rerunMsMax = 15_000

/** "twice" counts every row beyond the first. */
const effectsSql = `
  with per_order as (
    select (select count(*) from storefront.payments p where p.order_id = o.id) as payments,
           (select count(*) from storefront.invoices i where i.order_id = o.id) as invoices,
           (select count(*) from storefront.receipts r where r.order_id = o.id) as receipts
    from storefront.orders o
  ), per_item as (
    select (select count(*) from storefront.stock_movements m
            where m.order_id = i.order_id and m.product_id = i.product_id and m.quantity = -i.quantity) as movements
    from storefront.order_items i
  ), per_product as (
    select stock, (select sum(quantity) from storefront.stock_movements m where m.product_id = p.id) as moved
    from storefront.products p
  )
  select (select count(*) from per_order where payments = 0 or invoices = 0 or receipts = 0)::int
           + (select count(*) from per_item where movements = 0)::int as missing,
         (select coalesce(sum(greatest(payments - 1, 0)), 0) from per_order)::int as payments,
         (select coalesce(sum(greatest(invoices - 1, 0)), 0) from per_order)::int as invoices,
         (select coalesce(sum(greatest(receipts - 1, 0)), 0) from per_order)::int as receipts,
         (select coalesce(sum(greatest(movements - 1, 0)), 0) from per_item)::int as movements,
         (select count(*) from per_product where stock is distinct from moved)::int as stock`

export async function readResult(pool: pg.Pool, run: LoadRun): Promise<LoadResult> {
  // forge counts for each job the processes that died while they ran it.
  const interrupted = run.jobs.filter((job) => job.crashes > 0).map((job) => job.id)
  const [effects, rerun] = await Promise.all([
    pool.query<Effects>(effectsSql),
    pool.query<{ ms: number | null }>(
      `select (extract(epoch from min(at) - $2) * 1000)::float8 as ms
       from storefront.step_starts where job_id = any($1::uuid[]) and at > $2 and pid <> $3`,
      [interrupted, run.killed.at, run.killed.pid],
    ),
  ])
  return {
    run,
    effects: effects.rows[0] as Effects,
    enqueued: run.orders.flatMap((order) => Object.values(order.jobs)).length,
    completed: run.jobs.filter((job) => job.state === 'completed').length,
    interrupted: interrupted.length,
    rerunMs: rerun.rows[0]?.ms ?? null,
  }
}

type Line = readonly [label: string, value: string, demand?: string, met?: boolean]

export function isGood(result: LoadResult): boolean {
  return lines(result).every(([, , , met]) => met !== false)
}

export function show(result: LoadResult): void {
  console.log('')
  for (const [label, value, demand = '', met] of lines(result)) {
    const verdict = met === undefined ? '' : met ? 'ok' : 'FAILED'
    console.log(`  ${label.padEnd(38)} ${value.padStart(9)}   ${demand.padEnd(26)} ${verdict}`.trimEnd())
  }
  console.log('')
}

function lines({ run, effects, enqueued, completed, interrupted, rerunMs }: LoadResult): Line[] {
  const none = (label: string, n: number): Line => [label, count(n), 'must be 0', n === 0]
  const { orders, wanted, placedMs, totalMs } = run
  return [
    ['orders acknowledged', count(orders.length), `of ${count(wanted)}`, orders.length === wanted],
    ['jobs acknowledged', count(enqueued)],
    ['jobs completed', count(completed)],
    none('jobs lost', enqueued - completed),
    none('effects missing', effects.missing),
    none('payments done twice', effects.payments),
    none('stock movements done twice', effects.movements),
    none('invoices done twice', effects.invoices),
    none('products whose stock is off', effects.stock),
    ['receipts sent twice', count(effects.receipts), 'allowed: at least once'],
    ['jobs running when the worker was killed', count(interrupted)],
    [
      'from SIGKILL to the first rerun',
      rerunMs === null ? 'none' : seconds(rerunMs),
      `at most ${seconds(rerunMsMax)}`,
      rerunMs !== null && rerunMs <= rerunMsMax,
    ],
    ['orders placed', seconds(placedMs), `${Math.round(orders.length / (placedMs / 1_000))} a second`],
    ['all jobs done', seconds(totalMs), `${Math.round(completed / (totalMs / 1_000))} a second`],
  ]
}

function count(n: number): string {
  return n.toLocaleString('en')
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`
}
