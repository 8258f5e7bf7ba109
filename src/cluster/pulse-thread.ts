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
  readonly termMs: number
  readonly campaignMs: number
  readonly leadMs: number
  /** To give a role up. */
  readonly resignSql: string
  /** Locks of this connection are its own: no transaction-mode pooler is between. */
  readonly locking: boolean
  /** Three 64-bit integers, monotonic milliseconds: [0] the main loop's last tick, [1] trusted until, [2] gave all roles up. */
  readonly shared: SharedArrayBuffer
}

export type FromPulse =
  | {
      readonly kind: 'beat'
      readonly renewed: boolean
      readonly expired: number
      readonly deaths: boolean
      readonly draining: boolean
      readonly tookMs: number
      readonly epoch: string
      readonly leads: Lead[] | null
      readonly sentAtMs: number
      readonly wallMs: number
    }
  | { readonly kind: 'fault'; readonly message: string }
  | { readonly kind: 'frozen' }
  | { readonly kind: 'password'; readonly ticket: number }
  | { readonly kind: 'resigned'; readonly ticket: number }
  | { readonly kind: 'stopped' }

/** As in leads.ts. */
interface Lead {
  readonly role: string
  readonly term: string
  readonly n: number
  readonly locked: boolean
  readonly renewed: boolean
  readonly fault: string | null
}

interface Beaten {
  readonly renewed: number
  readonly expired: number
  readonly deaths: boolean
  readonly draining: boolean
  readonly leads: Lead[] | null
  readonly wall_ms: number
}

export type ToPulse =
  | { readonly kind: 'epoch'; readonly epoch: string }
  | {
      readonly kind: 'password'
      readonly ticket: number
      readonly password?: string
      readonly fault?: string
    }
  | { readonly kind: 'load'; readonly load: string; readonly serves: string | null }
  | { readonly kind: 'campaign'; readonly wanted: readonly string[] }
  | { readonly kind: 'resign'; readonly ticket: number; readonly roles: readonly string[] }
  | { readonly kind: 'stop' }

const port = parentPort as NonNullable<typeof parentPort>
const orders = workerData as PulseOrders
const shared = new BigInt64Array(orders.shared)
const retryMs = 250
/** Between renewals that somebody asked for. */
const hurryMs = 50
/** Whoever stops waits for it. */
const resignMs = 1_000
const answerMs = Math.max(orders.renewMs, 500)

let epoch = orders.epoch
let wanted: readonly string[] = []
/** Somebody asked while a renewal was under way. */
let again = false
/** Not written yet. */
let load: string | null = null
let serves: string | null = null
let roundAt = Number.NEGATIVE_INFINITY
/** The main loop stands still, and its roles were given up. */
let absent = false
let client: pg.Client | null = null
let turn: Promise<void> = Promise.resolve()
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
  else if (message.kind === 'load') [load, serves] = [message.load, message.serves ?? serves]
  else if (message.kind === 'campaign') campaign(message.wanted)
  else if (message.kind === 'resign') void resign(message.roles, message.ticket)
  else void stop()
})

/** At once: somebody waits to lead, or a leader has gone. */
function campaign(roles: readonly string[]): void {
  wanted = roles
  again = true
  if (timer === null || stopped) return
  clearTimeout(timer)
  schedule(0)
}

function schedule(ms: number): void {
  const earliest = roundAt + hurryMs - monotonicMs()
  timer = setTimeout(() => void (beating = round()), Math.max(ms, earliest))
}

async function resign(roles: readonly string[], ticket: number): Promise<void> {
  wanted = wanted.filter((each) => !roles.includes(each))
  // What is not given up so is over when its term is.
  await letGo(roles).catch(() => {})
  say({ kind: 'resigned', ticket })
}

async function letGo(roles: readonly string[]): Promise<void> {
  const said = inTurn(async () => client?.query(orders.resignSql, [orders.nodeId, epoch, roles]))
  await Promise.race([said, late(resignMs)])
}

/** One statement at a time. */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const mine = turn.then(work)
  turn = mine.then(
    () => {},
    () => {},
  )
  return mine
}

/** What the connection held is held no more. */
function shake(error: unknown): void {
  drop()
  say({ kind: 'fault', message: error instanceof Error ? error.message : String(error) })
}

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
  turn = Promise.resolve()
  const { stream } =
    (gone as unknown as { connection?: { stream?: { destroy(): void } } } | null)?.connection ?? {}
  stream?.destroy()
  gone?.end().catch(() => {})
}

async function connected(): Promise<pg.Client> {
  if (client) return client
  const made = new pg.Client({ ...orders.config, ...(orders.asksPassword ? { password: askPassword } : {}) })
  const gone = (): void => {
    if (client === made) shake('the connection broke')
  }
  made.on('error', gone)
  made.on('end', gone)
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
  // Who cannot do the work of a leader must not keep others from it.
  const able = sentAt - Number(Atomics.load(shared, 0)) < orders.leadMs
  try {
    const terms = [able ? wanted : [], orders.locking, orders.termMs]
    const values = [orders.nodeId, used, orders.leaseMs, mayExpire, ...terms, load, serves]
    const sent = [load, serves]
    const answer = await Promise.race([
      inTurn(async () => (await connected()).query<Beaten>(orders.sql, values)),
      late(answerMs),
    ])
    const row = answer.rows[0] as Beaten
    const renewed = row.renewed === 1
    noteContact(monotonicMs())
    if (load === sent[0]) load = null
    if (serves === sent[1]) serves = null
    if (renewed && used === epoch) Atomics.store(shared, 1, BigInt(sentAt + orders.trustMs))
    say({
      kind: 'beat',
      renewed,
      expired: row.expired,
      deaths: row.deaths,
      draining: row.draining,
      tookMs: monotonicMs() - sentAt,
      epoch: used,
      // Nobody asked for: then it leads nothing.
      leads: able ? row.leads : [],
      sentAtMs: sentAt,
      wallMs: row.wall_ms,
    })
    if (!able && !absent) {
      // Before it is so: what the main loop still has to hear counts for nothing from here on.
      Atomics.store(shared, 2, BigInt(monotonicMs()))
      await letGo(wanted)
    }
    absent = !able
    return true
  } catch (error) {
    contactSince = contactLast = Number.NaN
    shake(error)
    return false
  }
}

async function round(): Promise<void> {
  timer = null
  again = false
  roundAt = monotonicMs()
  const frozen = monotonicMs() - Number(Atomics.load(shared, 0)) > orders.frozenMs
  if (frozen) say({ kind: 'frozen' })
  const good = frozen || (await beat())
  if (stopped) return
  const usual = wanted.length > 0 ? orders.campaignMs : orders.renewMs
  const ms = good ? (again ? 0 : usual) : Math.min(retryMs, orders.renewMs)
  schedule(ms)
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
