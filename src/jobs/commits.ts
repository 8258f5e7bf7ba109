import { messageOf, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { transactionsDone } from './queries/enqueue.js'

interface Watched {
  readonly announce: (() => void)[]
  readonly untilMs: number
}

const watchedMax = 1_000
const forgetMs = 60_000
const firstMs = 2
const slowestMs = 1_000

/**
 * Watches transactions that somebody else commits, so that the hint goes out right after the commit. All pending
 * ones are asked for in one statement, first after 2 ms, then ever more slowly. What is forgotten (more than 1,000,
 * older than 60 s, a failed question: after a failover a future xid raises) is found by polling.
 */
export class CommitWatch {
  readonly #runtime: Runtime
  readonly #watched = new Map<string, Watched>()
  #timer: Timer | null = null
  #waitMs = firstMs

  constructor(runtime: Runtime) {
    this.#runtime = runtime
  }

  /** Calls `announce` soon after transaction `xid` commits; never if it rolls back. */
  watch(xid: string, announce: () => void): void {
    const standing = this.#watched.get(xid)
    if (standing) return void standing.announce.push(announce)
    if (this.#watched.size >= watchedMax) return
    this.#watched.set(xid, { announce: [announce], untilMs: this.#runtime.clock.monotonicMs() + forgetMs })
    this.#waitMs = firstMs
    this.#arm()
  }

  stop(): void {
    this.#timer?.cancel()
    this.#watched.clear()
  }

  #arm(): void {
    this.#timer?.cancel()
    this.#timer = this.#runtime.clock.timer(this.#waitMs, () => void this.#ask())
  }

  async #ask(): Promise<void> {
    const now = this.#runtime.clock.monotonicMs()
    for (const [xid, item] of this.#watched) if (item.untilMs < now) this.#watched.delete(xid)
    if (this.#watched.size === 0) return
    try {
      const rows = await this.#runtime.db.control.run(transactionsDone, [[...this.#watched.keys()]])
      for (const { xid, status } of rows) if (status !== 'in progress') this.#end(xid, status === 'committed')
    } catch (error) {
      this.#runtime.log.debug(`forge: stopped watching ${this.#watched.size} commits: ${messageOf(error)}`)
      this.#watched.clear()
    }
    this.#waitMs = Math.min(this.#waitMs * 1.5, slowestMs)
    if (this.#watched.size > 0) this.#arm()
  }

  #end(xid: string, committed: boolean): void {
    const item = this.#watched.get(xid)
    this.#watched.delete(xid)
    if (committed) for (const announce of item?.announce ?? []) announce()
  }
}
