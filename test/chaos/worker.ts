import pg from 'pg'
import {
  type AttachOptions,
  createForge,
  type JobContext,
  type Leading,
  type Logger,
} from '../../src/index.js'
import { report, reportReady } from '../../src/testing/index.js'

/* One node of a chaos test, as a process of its own. argv[2] is JSON: { url, options, produce? }. */
const orders = JSON.parse(process.argv[2] ?? '{}') as {
  readonly url: string
  readonly options: AttachOptions
  /** Enqueue one job after the other, so many milliseconds apart. */
  readonly produceMs?: number
  readonly delayMs?: number
  /** Says nothing of single jobs: for many of them. */
  readonly quiet?: boolean
  /** Asks to lead this role; the table `led` shows each write that was accepted. */
  readonly lead?: string
  /** Has a schedule that fires each second. */
  readonly ticks?: boolean
}

/** Ways to take the process along. */
export type Poison = 'exit' | 'abort' | 'memory'

export interface ChaosInput {
  readonly ms: number
  /** How long claims after the first take: a zombie that wakes finds the job running under another token. */
  readonly holdMs?: number
  /** How the handler ends: see below. */
  readonly how?: 'return' | 'nothing' | 'transaction' | 'throw' | 'snooze' | 'progress' | Poison
  /** The bulk enqueue it came with. */
  readonly batch?: string
  /** Of jobs that run one at a time for each key, in the whole fleet. */
  readonly key?: string
}

const silent = (): void => {}
const logger: Logger = { debug: silent, info: silent, warn: silent, error: silent }
const pool = new pg.Pool({ connectionString: orders.url, max: 3, connectionTimeoutMillis: 5_000 })
pool.on('error', silent)
const forge = createForge()

const wait = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms))

const tell = async (message: object): Promise<void> => (orders.quiet ? undefined : report(message))

function takeAlong(how: ChaosInput['how']): void {
  if (how === 'exit') process.exit(7)
  if (how === 'abort') process.abort()
  const hoard: unknown[] = []
  while (how === 'memory') hoard.push(Array.from({ length: 100_000 }, (_, n) => ({ n })))
}

async function end(input: ChaosInput, job: JobContext): Promise<unknown> {
  const { token } = job.fence
  takeAlong(input.how)
  if (input.how === 'transaction') {
    await job.transaction(async (tx) => {
      await tx.query('insert into chaos.effect (job, token) values ($1, $2)', [job.id, token])
      await job.complete({ token }, { tx })
    })
    return null
  }
  // A first claim ends badly; whoever claims after it ends well, so that every job completes.
  if (job.fence.n === 1 && input.how === 'throw') throw new Error('first claim')
  if (job.fence.n === 1 && input.how === 'snooze') return job.snooze(0)
  if (input.how === 'progress') job.progress(50, token)
  // No result: handed in by the claim as a whole.
  if (input.how === 'nothing') return null
  return { token }
}

/** Reading the input takes a moment, so that a test can break things before the handler starts. */
const slowSchema = {
  '~standard': {
    version: 1,
    vendor: 'chaos',
    validate: async (value: unknown) => {
      await tell({ kind: 'parsing' })
      await wait(300)
      return { value: value as ChaosInput }
    },
  },
} as const

const patient = { timeout: '5m', retry: { attempts: 20, base: '20ms', max: '200ms' } } as const
const work = forge.job('chaos', { ...patient, run })
forge.job('chaos.alone', { ...patient, concurrency: { limit: 1, by: keyOf }, run })
if (orders.ticks) forge.cron('chaos.tick', '* * * * * *', { missed: 'all', run: silent })
forge.job('chaos.parsed', { input: slowSchema, run })

async function run(input: ChaosInput, job: JobContext): Promise<unknown> {
  const about = { id: job.id, token: job.fence.token, n: job.fence.n }
  void tell({ kind: 'started', ...about })
  job.signal.addEventListener('abort', () => {
    void tell({ kind: 'aborted', ...about, code: (job.signal.reason as { code?: string }).code })
  })
  // Deaf to its signal on purpose: what a zombie sends must be refused, not merely not sent.
  await wait(job.fence.n === 1 ? input.ms : (input.holdMs ?? 0))
  try {
    return await end(input, job)
  } finally {
    void tell({ kind: 'ended', ...about })
  }
}

function keyOf({ key = '' }: ChaosInput): string {
  return key
}

let producing = true
async function produce(everyMs: number): Promise<void> {
  while (producing) {
    await wait(everyMs)
    // Not awaited: a stopped server must not stop the producer. The id is made first, so an unknown outcome has one.
    const id = crypto.randomUUID()
    void work
      .enqueue({ ms: 20 }, orders.delayMs === undefined ? { id } : { id, delay: orders.delayMs })
      .then(() => report({ kind: 'enqueued', id, acked: true }))
      .catch(() => report({ kind: 'enqueued', id, acked: false }))
  }
}

const node = await forge.attach(null, pool, { logger, ...orders.options })
process.on('message', (message: { kind?: string; input?: ChaosInput; queue?: string; ms?: number }) => {
  if (message.kind === 'quiet') producing = false
  if (message.kind === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, message.ms)
  if (message.kind === 'stop') {
    void node
      .stop({ timeout: '2s' })
      .then(() => pool.end())
      .then(() => process.disconnect())
  }
})
if (orders.produceMs !== undefined) void produce(orders.produceMs)

/** Deaf to its signal on purpose while it writes: what is written under an old term must be refused. */
async function lead({ role, term, signal }: Leading): Promise<void> {
  void report({ kind: 'leads', n: term.n })
  let deaf = 5
  while (!signal.aborted || deaf-- > 0) {
    const write = 'insert into public.led (n, node) select $1, $2 where forge.leads($3, $4)'
    await pool.query(write, [term.n, node.id, role, term.id]).catch(silent)
    await wait(20)
  }
  void report({ kind: 'led', n: term.n })
}
if (orders.lead !== undefined) node.whileLeading(orders.lead, lead)
await reportReady({ node: node.id, wallMs: Date.now() })
