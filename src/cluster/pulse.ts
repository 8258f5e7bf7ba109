import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { deferred, messageOf, type Timer, within } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Beater, LeaseTimes, PulseEvents } from './beater.js'
import { LoadMeter } from './load.js'
import { MainLoopPulse } from './pulse-main.js'
import type { FromPulse, PulseOrders, ToPulse } from './pulse-thread.js'
import { beat, pulseSettings, resign } from './queries.js'

/**
 * The pulse of this node: renews the lease, and knows until when this process may trust it. Trust is counted from
 * before the renewal was sent, so that a slow answer never extends it.
 */
export class Pulse {
  readonly #runtime: Runtime
  readonly #times: LeaseTimes
  readonly #events: PulseEvents
  readonly #shared = new SharedArrayBuffer(24)
  readonly #cells = new BigInt64Array(this.#shared)
  #beater: Beater | null = null
  #ticker: NodeJS.Timeout | null = null
  #epoch = ''
  #wanted: readonly string[] = []
  #stopping = false
  #reportedMs = Number.NEGATIVE_INFINITY
  readonly meter: LoadMeter
  /** Why the main loop beats instead of a thread; null when a thread does. */
  fallback: string | null = null

  constructor(runtime: Runtime, times: LeaseTimes, events: PulseEvents) {
    this.#runtime = runtime
    this.#times = times
    this.#events = events
    this.meter = new LoadMeter(runtime.clock)
  }

  /** Monotonic milliseconds until which the lease may be trusted; 0 before the first renewal. */
  get trustedUntilMs(): number {
    return Number(Atomics.load(this.#cells, 1))
  }

  /** Monotonic milliseconds when all roles were given up since the main loop stood still; 0: never. */
  get gaveUpMs(): number {
    return Number(Atomics.load(this.#cells, 2))
  }

  get trusted(): boolean {
    return this.#runtime.clock.monotonicMs() < this.trustedUntilMs
  }

  start(epoch: string): void {
    const everyMs = Math.min(1_000, this.#times.leadMs / 4)
    const tick = (): void => {
      Atomics.store(this.#cells, 0, BigInt(Math.floor(this.#runtime.clock.monotonicMs())))
      this.meter.tick(everyMs)
      this.#report()
    }
    tick()
    this.#ticker = setInterval(tick, everyMs)
    this.#ticker.unref()
    this.#epoch = epoch
    this.#beater = this.#thread(epoch) ?? this.#mainLoop()
    this.#beater.start(epoch)
    this.#report(true)
  }

  /** As often as it is renewed. */
  #report(anew = false): void {
    const now = this.#runtime.clock.monotonicMs()
    if (!anew && now - this.#reportedMs < this.#times.renewMs) return
    this.#reportedMs = now
    const { load, serves } = this.meter.take(anew)
    this.#beater?.report(load, serves)
  }

  /** The thread is gone, whatever ended it: the main loop takes over at once. */
  #onThreadEnd(why: string): void {
    if (this.#stopping) return
    this.fallback = why
    // With it went its connection, and the locks that it held.
    this.#events.fault(why)
    this.#runtime.log.warn(`forge: the pulse thread ended, the main loop beats on: ${why}`)
    this.#beater = this.#mainLoop()
    this.#beater.campaign(this.#wanted)
    this.#beater.start(this.#epoch)
    this.#report(true)
  }

  /** Asks for these roles from now on, and at once. */
  campaign(wanted: readonly string[]): void {
    this.#wanted = wanted
    this.#beater?.campaign(wanted)
  }

  /** Renews now: something is to be learned from it. */
  hurry(): void {
    this.campaign(this.#wanted)
  }

  /** Gives roles up. Resolves when others may have them, or when PostgreSQL did not answer. */
  async resign(roles: readonly string[]): Promise<void> {
    await this.#beater?.resign(roles)
  }

  /** Under the new epoch nothing is trusted until its first renewal. */
  changeEpoch(epoch: string): void {
    Atomics.store(this.#cells, 1, 0n)
    this.#epoch = epoch
    this.#beater?.changeEpoch(epoch)
    this.#report(true)
  }

  async stop(): Promise<void> {
    this.#stopping = true
    if (this.#ticker) clearInterval(this.#ticker)
    await this.#beater?.stop()
    Atomics.store(this.#cells, 1, 0n)
  }

  #thread(epoch: string): Beater | null {
    try {
      const { source } = this.#runtime.db
      if (source.custom) throw new Error('the pool brings its own Client or stream')
      return new ThreadPulse(this.#orders(epoch), this.#runtime, {
        ...this.#events,
        ended: (why) => this.#onThreadEnd(why),
      })
    } catch (error) {
      this.fallback = messageOf(error)
      this.#runtime.log.warn(`forge: the pulse runs on the main loop: ${this.fallback}`)
      return null
    }
  }

  #mainLoop(): Beater {
    return new MainLoopPulse(this.#runtime, this.#times, {
      ...this.#events,
      trusted: (untilMs) => void Atomics.store(this.#cells, 1, BigInt(Math.floor(untilMs))),
    })
  }

  #orders(epoch: string): PulseOrders {
    const { db, nodeId } = this.#runtime
    const { password, ...config } = db.source.config('forge:pulse') as Record<string, unknown>
    const asksPassword = typeof password === 'function'
    return {
      config: asksPassword ? config : { ...config, password },
      asksPassword,
      sql: beat.text(db.schema),
      resignSql: resign.text(db.schema),
      // Of a pooler it is not certain that it keeps the connection for us: there terms alone decide.
      locking: db.source.pooler === 'none',
      openSql: db.source.pooler === 'none' ? pulseSettings.text(db.schema) : null,
      nodeId,
      epoch,
      ...this.#times,
      shared: this.#shared,
    }
  }
}

/** Beside this file: the source, or else CommonJS, which costs a thread 0.7 MiB less than the loader of ES modules. */
function threadFile(): URL {
  const here = import.meta.url
  const url = new URL(`./pulse-thread.${here.endsWith('.ts') ? 'ts' : 'cjs'}`, here)
  if (!existsSync(fileURLToPath(url))) throw new Error('pulse-thread is not beside the bundle')
  return url
}

class ThreadPulse implements Beater {
  readonly #worker: Worker
  readonly #runtime: Runtime
  readonly #stopped = deferred<void>()
  #patience: Timer | null = null
  readonly #resigning = new Map<number, () => void>()
  #tickets = 0
  #exited = false

  constructor(orders: PulseOrders, runtime: Runtime, events: PulseEvents & { ended(why: string): void }) {
    this.#runtime = runtime
    // Throws DataCloneError for a configuration that cannot travel, such as ssl with functions in it.
    // One small answer every few seconds: more room for new objects would only be filled before it is emptied.
    const resourceLimits = { maxYoungGenerationSizeMb: 1 }
    const options = { workerData: orders, name: 'forge pulse', execArgv: [], resourceLimits }
    this.#worker = new Worker(threadFile(), options)
    this.#worker.on('message', (message: FromPulse) => this.#hear(message, events))
    let why = 'it exited'
    this.#worker.on('error', (error) => void (why = messageOf(error)))
    this.#worker.on('exit', () => {
      this.#exited = true
      this.#stopped.resolve()
      for (const resigned of this.#resigning.values()) resigned()
      events.ended(why)
    })
  }

  /** It beats from its birth. */
  start(): void {}

  changeEpoch(epoch: string): void {
    this.#say({ kind: 'epoch', epoch })
  }

  campaign(wanted: readonly string[]): void {
    this.#say({ kind: 'campaign', wanted })
  }

  report(load: string, serves: string | null): void {
    this.#say({ kind: 'load', load, serves })
  }

  resign(roles: readonly string[]): Promise<void> {
    // With it went its connection: there is nothing to be given up any more.
    if (this.#exited) return Promise.resolve()
    const ticket = ++this.#tickets
    this.#say({ kind: 'resign', ticket, roles })
    return new Promise((resolve) => this.#resigning.set(ticket, resolve))
  }

  async stop(): Promise<void> {
    this.#say({ kind: 'stop' })
    const { clock } = this.#runtime
    await within(this.#stopped.promise, { clock, ms: 3_000, late: () => new Error('late') }).catch(() => {})
    this.#patience?.cancel()
    await this.#worker.terminate()
  }

  #say(message: ToPulse): void {
    this.#worker.postMessage(message)
  }

  #hear(message: FromPulse, events: PulseEvents): void {
    if (message.kind === 'beat') events.beat(message)
    else if (message.kind === 'fault') events.fault(message.message)
    else if (message.kind === 'frozen') events.fault('the main loop stood still; the lease was let go')
    else if (message.kind === 'stopped') this.#stopped.resolve()
    else if (message.kind === 'resigned') this.#resigned(message.ticket)
    else void this.#answerPassword(message.ticket)
  }

  #resigned(ticket: number): void {
    this.#resigning.get(ticket)?.()
    this.#resigning.delete(ticket)
  }

  async #answerPassword(ticket: number): Promise<void> {
    const { password } = this.#runtime.db.source.config('forge:pulse')
    try {
      const value = typeof password === 'function' ? await password() : password
      this.#say({ kind: 'password', ticket, password: value ?? '' })
    } catch (error) {
      this.#say({ kind: 'password', ticket, fault: messageOf(error) })
    }
  }
}
