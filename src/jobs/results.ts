import { type Duration, durationMs, ForgeError, messageOf, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { stateName } from './job.js'
import { jobFinished } from './news.js'
import { finishedJobs, unfinishedJobs } from './queries/manage.js'

interface Waiter {
  readonly id: string
  readonly untilMs: number
  /** False: it was made in a transaction that may not have committed; then "not there" means nothing. */
  readonly committed: boolean
  resolve(value: unknown): void
  reject(error: unknown): void
}

const fastestMs = 25
const slowestMs = 1_000
/** Asked for in one statement; with more waiters the polls go round. */
const idsMax = 1_000
/** Every so many polls, waiters whose job is in neither place are told that nothing was kept. */
const absentEvery = 4

/**
 * Waits for results: all waiters of the process share one statement, every 25 ms at first, then up to 1 s apart. What
 * finishes in this very process is asked for at once, and alone.
 */
export class Results {
  readonly #runtime: Runtime
  readonly #waiters = new Map<string, Set<Waiter>>()
  readonly #unsubscribe: () => void
  /** Ids that this process knows to be finished. */
  readonly #done = new Set<string>()
  #timer: Timer | null = null
  #polling = false
  #waitMs = fastestMs
  #polls = 0
  #stopped = false
  #offset = 0

  constructor(runtime: Runtime) {
    this.#runtime = runtime
    this.#unsubscribe = runtime.news.on(jobFinished, ({ id }) => {
      if (!this.#waiters.has(id)) return
      this.#done.add(id)
      this.#arm(0)
    })
  }

  wait(
    id: string,
    options: { readonly timeout?: Duration } | undefined,
    committed: boolean,
  ): Promise<unknown> {
    if (this.#stopped) return Promise.reject(new ForgeError('FORGE_STOPPED'))
    const timeoutMs = durationMs(options?.timeout ?? '30s', 'The timeout of result()')
    return new Promise((resolve, reject) => {
      const waiter = {
        id,
        committed,
        resolve,
        reject,
        untilMs: this.#runtime.clock.monotonicMs() + timeoutMs,
      }
      const set = this.#waiters.get(id) ?? new Set()
      this.#waiters.set(id, set.add(waiter))
      if (this.#timer !== null && this.#waitMs <= fastestMs) return
      this.#waitMs = fastestMs
      this.#arm(fastestMs)
    })
  }

  stop(): void {
    this.#stopped = true
    this.#unsubscribe()
    this.#timer?.cancel()
    for (const waiter of this.#all()) waiter.reject(new ForgeError('FORGE_STOPPED'))
    this.#waiters.clear()
  }

  #all(): Waiter[] {
    return [...this.#waiters.values()].flatMap((set) => [...set])
  }

  #arm(ms: number): void {
    if (this.#polling) return
    this.#timer?.cancel()
    this.#timer = this.#runtime.clock.timer(ms, () => void this.#poll())
  }

  async #poll(): Promise<void> {
    this.#polling = true
    this.#timer = null
    try {
      if (this.#done.size > 0) await this.#askFinished(this.#takeDone())
      else await this.#askAll()
    } catch (error) {
      this.#runtime.log.debug(`forge: could not look for results: ${messageOf(error)}`)
    }
    this.#polling = false
    this.#expire()
    if (this.#waiters.size > 0) this.#arm(this.#done.size > 0 ? 0 : this.#waitMs)
  }

  #takeDone(): string[] {
    const ids = [...this.#done].slice(0, idsMax)
    for (const id of ids) this.#done.delete(id)
    return ids
  }

  async #askFinished(ids: readonly string[]): Promise<void> {
    const rows = await this.#runtime.db.control.run(finishedJobs, [ids])
    for (const row of rows) this.#settle(row.id, (waiter) => settleWith(waiter, row))
  }

  async #askAll(): Promise<void> {
    this.#waitMs = Math.min(this.#waitMs * 1.3, slowestMs)
    const ids = this.#nextIds()
    if (ids.length === 0) return
    const look = ++this.#polls % absentEvery === 0
    const there = look ? await this.#runtime.db.control.run(unfinishedJobs, [ids]) : null
    await this.#askFinished(ids)
    if (!there) return
    const known = new Set(there.map((row) => row.id))
    for (const id of ids) if (!known.has(id) && this.#waiters.has(id)) this.#giveUp(id)
  }

  #nextIds(): string[] {
    const all = [...this.#waiters.keys()]
    if (this.#offset >= all.length) this.#offset = 0
    const ids = all.slice(this.#offset, this.#offset + idsMax)
    this.#offset += idsMax
    return ids
  }

  #giveUp(id: string): void {
    const set = this.#waiters.get(id) ?? new Set()
    for (const waiter of set) {
      if (!waiter.committed) continue
      waiter.reject(new ForgeError('FORGE_RESULT_NOT_KEPT', `Job ${id}.`))
      set.delete(waiter)
    }
    if (set.size === 0) this.#waiters.delete(id)
  }

  #settle(id: string, end: (waiter: Waiter) => void): void {
    for (const waiter of this.#waiters.get(id) ?? []) end(waiter)
    this.#waiters.delete(id)
  }

  #expire(): void {
    const now = this.#runtime.clock.monotonicMs()
    for (const [id, set] of this.#waiters) {
      for (const waiter of set) {
        if (waiter.untilMs > now) continue
        const hint = waiter.committed ? '' : 'It was enqueued in a transaction that may not have committed.'
        waiter.reject(new ForgeError('FORGE_RESULT_TIMEOUT', `Job ${id}. ${hint}`.trim()))
        set.delete(waiter)
      }
      if (set.size === 0) this.#waiters.delete(id)
    }
  }
}

interface FinishedRow {
  readonly id: string
  readonly state: number
  readonly result: unknown
  readonly result_too_large: boolean
  readonly error: unknown
  readonly reason: string | null
}

function settleWith(waiter: Waiter, row: FinishedRow): void {
  const state = stateName(row.state)
  const about = `Job ${row.id}${row.reason ? `: ${row.reason}` : ''}.`
  if (state === 'completed') {
    if (row.result_too_large) waiter.reject(new ForgeError('FORGE_RESULT_TOO_LARGE', about))
    else waiter.resolve(row.result)
  } else {
    const code = { cancelled: 'FORGE_JOB_CANCELLED', quarantined: 'FORGE_JOB_QUARANTINED' } as const
    const own = code[state as keyof typeof code] ?? 'FORGE_JOB_DISCARDED'
    waiter.reject(new ForgeError(own, about, { cause: row.error ?? undefined }))
  }
}
