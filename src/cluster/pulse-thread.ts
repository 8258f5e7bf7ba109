/**
 * The pulse, in a thread of its own: a handler that blocks the main loop must not cost the node its lease. This file
 * is a separate program; it imports nothing of forge, so that it can be started as it is, from the sources too.
 */
import pg from 'pg'
import { parentPort, workerData } from 'node:worker_threads'

/** What the main thread hands over. Times in milliseconds. */
export interface PulseOrders {
  readonly config: Record<string, unknown>
  /** The password is a function: ask the main thread for each connection. */
  readonly asksPassword: boolean
  readonly sql: string
  /** Settings of the connection; null behind a pooler, where they would leak to others. */
  readonly openSql: string | null
  readonly nodeId: string
  readonly epoch: string
  readonly leaseMs: number
  readonly renewMs: number
  readonly trustMs: number
  readonly frozenMs: number
  /** Two 64-bit integers, monotonic milliseconds: [0] the main loop's last tick, [1] trusted until. */
  readonly shared: SharedArrayBuffer
}

export type FromPulse =
  | {
      readonly kind: 'beat'
      readonly renewed: boolean
      readonly expired: number
      readonly deaths: boolean
      readonly tookMs: number
      readonly epoch: string
    }
  | { readonly kind: 'fault'; readonly message: string }
  | { readonly kind: 'frozen' }
  | { readonly kind: 'password'; readonly ticket: number }
  | { readonly kind: 'stopped' }

export type ToPulse =
  | { readonly kind: 'epoch'; readonly epoch: string }
  | {
      readonly kind: 'password'
      readonly ticket: number
      readonly password?: string
      readonly fault?: string
    }
  | { readonly kind: 'stop' }

const port = parentPort as NonNullable<typeof parentPort>
const orders = workerData as PulseOrders
const shared = new BigInt64Array(orders.shared)
const retryMs = 250

let epoch = orders.epoch
let client: pg.Client | null = null
let timer: NodeJS.Timeout | null = null
let beating: Promise<void> | null = null
let stopped = false
let contactSince = Number.NaN
let contactLast = Number.NaN
let tickets = 0
const asked = new Map<number, (answer: { password?: string; fault?: string }) => void>()

const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000_000n)
const say = (message: FromPulse): void => port.postMessage(message)

port.on('message', (message: ToPulse) => {
  if (message.kind === 'epoch') epoch = message.epoch
  else if (message.kind === 'password') asked.get(message.ticket)?.(message)
  else void stop()
})

function askPassword(): Promise<string> {
  const ticket = ++tickets
  return new Promise((resolve, reject) => {
    asked.set(ticket, (answer) => {
      asked.delete(ticket)
      if (answer.fault === undefined) resolve(answer.password ?? '')
      else reject(new Error(answer.fault))
    })
    say({ kind: 'password', ticket })
  })
}

function drop(): void {
  const gone = client
  client = null
  const { stream } =
    (gone as unknown as { connection?: { stream?: { destroy(): void } } } | null)?.connection ?? {}
  stream?.destroy()
  gone?.end().catch(() => {})
}

async function connected(): Promise<pg.Client> {
  if (client) return client
  const made = new pg.Client({ ...orders.config, ...(orders.asksPassword ? { password: askPassword } : {}) })
  made.on('error', () => {
    if (client === made) drop()
  })
  client = made
  await made.connect()
  if (orders.openSql) await made.query(orders.openSql)
  return made
}

function late(ms: number): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms).unref()
  })
}

/** Whole contact means: no failed renewal and no long silence, for at least one lease. */
function noteContact(now: number): void {
  if (!(now - contactLast <= 2 * orders.renewMs + retryMs)) contactSince = now
  contactLast = now
}

async function beat(): Promise<boolean> {
  const sentAt = monotonicMs()
  const used = epoch
  const mayExpire = sentAt - contactSince >= orders.leaseMs && sentAt - contactLast <= 2 * orders.renewMs
  try {
    const values = [orders.nodeId, used, orders.leaseMs, mayExpire]
    const answer = await Promise.race([
      connected().then((ready) =>
        ready.query<{ renewed: number; expired: number; deaths: boolean }>(orders.sql, values),
      ),
      late(Math.max(orders.renewMs, 500)),
    ])
    const row = answer.rows[0] as { renewed: number; expired: number; deaths: boolean }
    const renewed = row.renewed === 1
    noteContact(monotonicMs())
    if (renewed && used === epoch) Atomics.store(shared, 1, BigInt(sentAt + orders.trustMs))
    say({
      kind: 'beat',
      renewed,
      expired: row.expired,
      deaths: row.deaths,
      tookMs: monotonicMs() - sentAt,
      epoch: used,
    })
    return true
  } catch (error) {
    drop()
    contactSince = contactLast = Number.NaN
    say({ kind: 'fault', message: error instanceof Error ? error.message : String(error) })
    return false
  }
}

async function round(): Promise<void> {
  const frozen = monotonicMs() - Number(Atomics.load(shared, 0)) > orders.frozenMs
  if (frozen) say({ kind: 'frozen' })
  const good = frozen || (await beat())
  if (!stopped)
    timer = setTimeout(
      () => void (beating = round()),
      good ? orders.renewMs : Math.min(retryMs, orders.renewMs),
    )
}

async function stop(): Promise<void> {
  stopped = true
  if (timer) clearTimeout(timer)
  await Promise.race([beating, new Promise((resolve) => setTimeout(resolve, 1_000))])
  const gone = client
  client = null
  await Promise.race([gone?.end().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 1_000))])
  say({ kind: 'stopped' })
  port.close()
}

beating = round()
