import type { ServerResponse } from 'node:http'
import type { ForgeNode, Job, JobCounts } from 'forge'
import {
  listProducts,
  newestOrders,
  type OrderRow,
  type Product,
  readSales,
  type Sales,
  type Step,
  steps,
} from './orders.ts'

/** A step of an order as the page shows it. */
export interface StepView {
  readonly state: 'waiting' | 'running' | 'retrying' | 'done' | 'failed'
  readonly percent: number | null
  /** What it is doing, or why the last attempt failed. */
  readonly note: string
  readonly attempt: number
  readonly attempts: number
  /** When a retry is due, in milliseconds since 1970. */
  readonly retryAt: number | null
  /** How often a worker died while it ran this. */
  readonly crashes: number
}

export interface OrderView {
  readonly id: string
  readonly number: number
  readonly customer: string
  readonly totalCents: number
  readonly placedAt: number
  readonly items: OrderRow['items']
  readonly steps: Readonly<Record<Step, StepView>>
}

export interface BoardView {
  readonly orders: readonly OrderView[]
  readonly products: readonly Product[]
  readonly totals: Sales & { readonly waiting: number; readonly running: number; readonly done: number }
}

const ordersShown = 30
const everyMs = 400
/** A comment line now and then shows a dead connection to both sides. */
const quietMsMax = 15_000

const unknownStep: StepView = {
  state: 'waiting',
  percent: null,
  note: '',
  attempt: 0,
  attempts: 0,
  retryAt: null,
  crashes: 0,
}

/** The state of an order's four jobs, asked of forge. */
export async function viewOrders(node: ForgeNode, rows: readonly OrderRow[]): Promise<OrderView[]> {
  const ids = rows.flatMap((row) => Object.values(row.jobs ?? {}))
  const jobs = ids.length > 0 ? await node.jobs.list({ ids, limit: ids.length }) : []
  const byId = new Map(jobs.map((job) => [job.id, job]))
  return rows.map((row) => ({
    id: row.id,
    number: row.number,
    customer: row.customer,
    totalCents: row.total_cents,
    placedAt: row.placed_at.getTime(),
    items: row.items,
    steps: Object.fromEntries(
      steps.map((step) => [step, viewStep(byId.get(row.jobs?.[step] ?? ''))]),
    ) as Record<Step, StepView>,
  }))
}

function viewStep(job: Job | undefined): StepView {
  if (!job) return unknownStep
  const { attempt, attempts, crashes } = job
  const about = { percent: null, note: '', attempt, attempts, crashes, retryAt: null }
  switch (job.state) {
    case 'running': {
      const { percent = null, message = '' } = job.progress ?? {}
      return { ...about, state: 'running', percent, note: message }
    }
    case 'retryable':
      return {
        ...about,
        state: 'retrying',
        note: job.errors.at(-1)?.message ?? '',
        retryAt: job.runAt.getTime(),
      }
    case 'completed':
      return { ...about, state: 'done' }
    case 'cancelled':
    case 'discarded':
    case 'quarantined':
      return { ...about, state: 'failed', note: job.reason ?? '' }
    default:
      return { ...about, state: 'waiting' }
  }
}

async function readBoard(node: ForgeNode): Promise<BoardView> {
  const [rows, products, sales, counts] = await Promise.all([
    newestOrders(ordersShown),
    listProducts(),
    readSales(),
    node.jobs.counts(),
  ])
  return { orders: await viewOrders(node, rows), products, totals: { ...sales, ...sumCounts(counts) } }
}

function sumCounts(counts: JobCounts): { waiting: number; running: number; done: number } {
  const waiting = counts.available + counts.scheduled + counts.blocked + counts.retryable
  return { waiting, running: counts.running, done: counts.completed }
}

/** The live view: server-sent events. One reader for all who watch, and none while nobody does. */
export class Board {
  readonly #node: ForgeNode
  readonly #watchers = new Set<ServerResponse>()
  #timer: NodeJS.Timeout | null = null
  #last = ''
  #sentAt = 0

  constructor(node: ForgeNode) {
    this.#node = node
  }

  watch(res: ServerResponse): void {
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    res.write('retry: 1000\n\n')
    if (this.#last) res.write(this.#last)
    this.#watchers.add(res)
    res.on('close', () => this.#watchers.delete(res))
    this.#timer ??= setTimeout(() => void this.#turn(), 0)
  }

  /** Ends all streams; browsers come back by themselves. */
  stop(): void {
    if (this.#timer) clearTimeout(this.#timer)
    for (const res of this.#watchers) res.end()
    this.#watchers.clear()
  }

  async #turn(): Promise<void> {
    try {
      const event = `data: ${JSON.stringify(await readBoard(this.#node))}\n\n`
      const quiet = performance.now() - this.#sentAt > quietMsMax
      if (event !== this.#last) this.#send(event)
      else if (quiet) this.#send(': still here\n\n')
      this.#last = event
    } catch (error) {
      console.error(`storefront: the board could not be read: ${(error as Error).message}`)
    }
    this.#timer = this.#watchers.size > 0 ? setTimeout(() => void this.#turn(), everyMs) : null
    if (!this.#timer) this.#last = ''
  }

  #send(text: string): void {
    this.#sentAt = performance.now()
    // A browser that does not keep up misses views; the next one says everything anew.
    for (const res of this.#watchers) if (!res.writableNeedDrain) res.write(text)
  }
}
