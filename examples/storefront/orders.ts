import type { ForgeNode, Tx } from 'forge'
import { z } from 'zod'
import { pool } from './database.ts'
import { invoice, payment, receipt, stock } from './jobs.ts'

const idMax = 2_147_483_647

/** What `POST /orders` takes. */
export const orderInput = z.object({
  customer: z
    .string()
    .trim()
    .min(1)
    .max(80)
    .regex(/^\P{Cc}*$/u, { error: 'holds control characters' }),
  items: z
    .array(z.object({ productId: z.int().min(1).max(idMax), quantity: z.int().min(1).max(20) }))
    .min(1)
    .max(20)
    .refine((items) => new Set(items.map((item) => item.productId)).size === items.length, {
      error: 'names a product twice',
    }),
})
export type OrderInput = z.output<typeof orderInput>

export const steps = ['payment', 'stock', 'receipt', 'invoice'] as const
export type Step = (typeof steps)[number]

export interface PlacedOrder {
  readonly id: string
  readonly number: number
  readonly totalCents: number
  /** The id of the job of each step. */
  readonly jobs: Readonly<Record<Step, string>>
}

/** The order names something that the shop does not have. */
export class UnknownProduct extends Error {}

/**
 * The checkout: order, items and the four jobs in one transaction. Either all of it exists afterwards or nothing does,
 * whatever breaks in between, and no worker sees a job before its order.
 * @throws UnknownProduct
 */
export function placeOrder(node: ForgeNode, order: OrderInput): Promise<PlacedOrder> {
  return node.transaction(async (tx) => {
    const { id, number, totalCents } = await insertOrder(tx, order)
    const jobs = {
      payment: (await payment.enqueue({ orderId: id }, { tx })).id,
      stock: (await stock.enqueue({ orderId: id }, { tx })).id,
      receipt: (await receipt.enqueue({ orderId: id }, { tx })).id,
      invoice: (await invoice.enqueue({ orderId: id }, { tx })).id,
    }
    await tx.query(
      `insert into storefront.order_jobs (order_id, step, job_id)
       select $1, * from unnest($2::text[], $3::uuid[])`,
      [id, steps, steps.map((step) => jobs[step])],
    )
    return { id, number, totalCents, jobs }
  })
}

async function insertOrder(tx: Tx, { customer, items }: OrderInput): Promise<Omit<PlacedOrder, 'jobs'>> {
  const ids = items.map((item) => item.productId)
  const prices = await tx.query('select id, price_cents from storefront.products where id = any($1)', [ids])
  const priceOf = new Map((prices.rows as { id: number; price_cents: number }[]).map((row) => [row.id, row]))
  const lines = items.map(({ productId, quantity }) => {
    const product = priceOf.get(productId)
    if (!product) throw new UnknownProduct(`There is no product ${productId}`)
    return { productId, quantity, cents: product.price_cents }
  })
  const totalCents = lines.reduce((sum, line) => sum + line.quantity * line.cents, 0)
  const { rows } = await tx.query(
    'insert into storefront.orders (customer, total_cents) values ($1, $2) returning id, number',
    [customer, totalCents],
  )
  const { id, number } = rows[0] as { id: string; number: number }
  await tx.query(
    `insert into storefront.order_items (order_id, product_id, quantity, price_cents)
     select $1, * from unnest($2::int[], $3::int[], $4::int[])`,
    [id, ids, lines.map((line) => line.quantity), lines.map((line) => line.cents)],
  )
  return { id, number, totalCents }
}

/** An order as it stands in the tables, without the state of its jobs. */
export interface OrderRow {
  readonly id: string
  readonly number: number
  readonly customer: string
  readonly total_cents: number
  readonly placed_at: Date
  readonly items: readonly { readonly name: string; readonly quantity: number }[]
  readonly jobs: Readonly<Partial<Record<Step, string>>>
}

const orderColumns = `
  o.id, o.number, o.customer, o.total_cents, o.placed_at,
  (select json_agg(json_build_object('name', p.name, 'quantity', i.quantity) order by p.id)
     from storefront.order_items i join storefront.products p on p.id = i.product_id where i.order_id = o.id) as items,
  (select json_object_agg(j.step, j.job_id) from storefront.order_jobs j where j.order_id = o.id) as jobs`

export async function newestOrders(limit: number): Promise<OrderRow[]> {
  const sql = `select ${orderColumns} from storefront.orders o order by o.number desc limit $1`
  return (await pool.query<OrderRow>(sql, [limit])).rows
}

export async function findOrder(id: string): Promise<OrderRow | null> {
  const sql = `select ${orderColumns} from storefront.orders o where o.id = $1`
  return (await pool.query<OrderRow>(sql, [id])).rows[0] ?? null
}

export interface Product {
  readonly id: number
  readonly name: string
  readonly icon: string
  readonly priceCents: number
  readonly stock: number
}

export async function listProducts(): Promise<Product[]> {
  const sql = `select id, name, icon, price_cents as "priceCents", stock from storefront.products order by id`
  return (await pool.query<Product>(sql)).rows
}

export interface Sales {
  readonly orders: number
  readonly paidCents: number
}

export async function readSales(): Promise<Sales> {
  const { rows } = await pool.query<Sales>(
    `select (select count(*)::int from storefront.orders) as orders,
            (select coalesce(sum(amount_cents), 0)::float8 from storefront.payments) as "paidCents"`,
  )
  return rows[0] ?? { orders: 0, paidCents: 0 }
}
