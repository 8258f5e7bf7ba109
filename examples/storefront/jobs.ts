import { setTimeout as pause } from 'node:timers/promises'
import { forge, type JobContext } from 'forge'
import { z } from 'zod'
import { pool } from './database.ts'

/**
 * The four jobs of an order. Payment, stock and invoice write to this database, so they finish inside their own
 * transaction (`job.complete`): rows and completion commit together, and happen once however often a worker dies.
 * The receipt goes out of the house, where once cannot be promised: it is sent at least once.
 */
const input = z.object({ orderId: z.uuid() })

/** Payments that fail, of all. The bank is a fake; its bad days are not. */
const failureRate = 0.2
const invoiceMs = Number(process.env.STOREFRONT_INVOICE_MS ?? 3_000)
const reorderBelow = 20
const delivery = 200

export const payment = forge.job('order.payment', {
  input,
  queue: 'payments',
  priority: 'high',
  timeout: '30s',
  retry: { attempts: 10, base: '1s', max: '3s' },
  async run({ orderId }, job) {
    await noteStart(job)
    // The job's id is the same on every attempt: the bank knows a charge that it has seen before.
    const reference = await chargeAtBank(job.id, job.signal)
    await job.transaction(async (tx) => {
      await tx.query(
        `insert into storefront.payments (order_id, amount_cents, reference)
         select id, total_cents, $2 from storefront.orders where id = $1`,
        [orderId, reference],
      )
      await job.complete({ reference }, { tx })
    })
  },
})

export const stock = forge.job('order.stock', {
  input,
  queue: 'stock',
  async run({ orderId }, job) {
    await noteStart(job)
    await job.transaction(async (tx) => {
      // Always in the order of the products, so that two orders never wait for each other's rows.
      await tx.query(
        `select from storefront.products where id in
           (select product_id from storefront.order_items where order_id = $1) order by id for no key update`,
        [orderId],
      )
      await tx.query(
        `with sold as (
           insert into storefront.stock_movements (product_id, order_id, quantity)
           select product_id, order_id, -quantity from storefront.order_items where order_id = $1
           returning product_id, quantity
         ), delivered as (
           insert into storefront.stock_movements (product_id, quantity)
           select id, $3 from storefront.products join sold on id = product_id where stock + quantity < $2
           returning product_id, quantity
         ), moved as (
           select product_id, sum(quantity) as quantity
           from (select * from sold union all select * from delivered) as both_ways group by product_id
         )
         update storefront.products set stock = stock + quantity from moved where id = product_id`,
        [orderId, reorderBelow, delivery],
      )
      await job.complete(null, { tx })
    })
  },
})

export const receipt = forge.job('order.receipt', {
  input,
  queue: 'mail',
  async run({ orderId }, job) {
    await noteStart(job)
    await pause(between(50, 200), undefined, { signal: job.signal })
    // Stands for a mail server: once it has taken the letter, nothing takes it back.
    await pool.query('insert into storefront.receipts (order_id) values ($1)', [orderId])
    return { sent: true }
  },
})

export const invoice = forge.job('order.invoice', {
  input,
  queue: 'documents',
  priority: 'low',
  async run({ orderId }, job) {
    await noteStart(job)
    const { rows: lines } = await pool.query<Record<string, unknown>>(
      `select name, quantity, i.price_cents from storefront.order_items i
       join storefront.products p on p.id = product_id where order_id = $1 order by product_id`,
      [orderId],
    )
    await drawPages(job)
    await job.transaction(async (tx) => {
      await tx.query('insert into storefront.invoices (order_id, lines) values ($1, $2)', [
        orderId,
        JSON.stringify(lines),
      ])
      await job.complete({ lines: lines.length }, { tx })
    })
  },
})

/** Slow on purpose, and polite: it says how far it is, and stops when its signal says so. */
async function drawPages(job: JobContext): Promise<void> {
  const stages = ['reading the order', 'laying out', 'drawing', 'drawing', 'signing']
  const stageMs = (invoiceMs * between(70, 130)) / 100 / stages.length
  for (const [index, stage] of stages.entries()) {
    job.progress((index / stages.length) * 100, stage)
    await pause(stageMs, undefined, { signal: job.signal })
  }
}

/** A fake bank. @throws Error now and then, as banks do */
async function chargeAtBank(key: string, signal: AbortSignal): Promise<string> {
  await pause(between(100, 400), undefined, { signal })
  if (Math.random() < failureRate) throw new Error('The bank did not answer')
  return `bank-${key.slice(-12)}`
}

async function noteStart(job: JobContext): Promise<void> {
  await pool.query('insert into storefront.step_starts (job_id, attempt, pid) values ($1, $2, $3)', [
    job.id,
    job.attempt,
    process.pid,
  ])
}

function between(least: number, most: number): number {
  return least + Math.random() * (most - least)
}
