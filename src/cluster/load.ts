import { cpuUsage, memoryUsage } from 'node:process'
import type { Clock } from '../kernel/index.js'

/** What a process carries, as it said with its last renewals. */
export interface NodeLoad {
  /** Jobs that run there. */
  readonly running: number
  /** Jobs that may run there at once, over all queues that it serves. */
  readonly slots: number
  /** By how much its event loop was late at worst, lately, in ms. */
  readonly loopMs: number
  /** Cores in use. */
  readonly cpu: number
  /** Resident memory of the process in MB. */
  readonly memoryMb: number
  /** How far the clock of the database is ahead of that of its machine, in ms, to within a round trip. */
  readonly clockMs: number
}

/** What of the jobs a process runs. */
export interface NodeServes {
  readonly queues: readonly string[]
  readonly names: readonly string[]
}

/** What another room knows of the load. */
export interface Gauges {
  readonly running: number
  readonly slots: number
  readonly serves: NodeServes
}

const namesMax = 200
/** A loop that is as late as this is not late. */
const loopMsMin = 5

/** Measures this process, for others to see. */
export class LoadMeter {
  readonly #clock: Clock
  #gauges: () => Gauges = () => ({ running: 0, slots: 0, serves: { queues: [], names: [] } })
  #tickMs = Number.NaN
  #lateMs = 0
  #cpu = cpuUsage()
  #atMs: number
  #serves = ''
  clockMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#atMs = clock.monotonicMs()
  }

  use(gauges: () => Gauges): void {
    this.#gauges = gauges
  }

  /** The loop came by; it should have done so `everyMs` after the last time. */
  tick(everyMs: number): void {
    const now = this.#clock.monotonicMs()
    if (!Number.isNaN(this.#tickMs)) this.#lateMs = Math.max(this.#lateMs, now - this.#tickMs - everyMs)
    this.#tickMs = now
  }

  /** Since the last time, as JSON; what it serves only where that is new, or with `anew`. */
  take(anew = false): { readonly load: string; readonly serves: string | null } {
    const { running, slots, serves } = this.#gauges()
    const now = this.#clock.monotonicMs()
    const { user, system } = cpuUsage(this.#cpu)
    const load: NodeLoad = {
      running,
      slots,
      loopMs: this.#lateMs < loopMsMin ? 0 : Math.round(this.#lateMs),
      cpu: Math.round((user + system) / Math.max(now - this.#atMs, 1) / 10) / 100,
      memoryMb: Math.round(memoryUsage.rss() / 1_000_000),
      clockMs: Math.round(this.clockMs),
    }
    this.#cpu = cpuUsage()
    this.#atMs = now
    this.#lateMs = 0
    const said = JSON.stringify({
      queues: serves.queues.slice(0, namesMax),
      names: serves.names.slice(0, namesMax),
    })
    const isNew = anew || said !== this.#serves
    this.#serves = said
    return { load: JSON.stringify(load), serves: isNew ? said : null }
  }
}
