import { type Clock, ForgeError, type Timer } from '../kernel/index.js'
import type { JobRun } from './run.js'

/** The timeouts of all running jobs on one timer: it stands at the earliest, and is not moved when a job ends. */
export class Deadlines {
  readonly #clock: Clock
  readonly #runs: () => readonly JobRun[]
  #timer: Timer | null = null
  #atMs = Number.POSITIVE_INFINITY

  constructor(clock: Clock, runs: () => readonly JobRun[]) {
    this.#clock = clock
    this.#runs = runs
  }

  /** Watches a run whose `deadlineMs` was just set. */
  watch({ deadlineMs }: JobRun): void {
    if (deadlineMs < this.#atMs) this.#arm(deadlineMs)
  }

  stop(): void {
    this.#timer?.cancel()
    this.#atMs = Number.POSITIVE_INFINITY
  }

  #arm(atMs: number): void {
    this.#timer?.cancel()
    this.#atMs = atMs
    this.#timer = this.#clock.timer(atMs - this.#clock.monotonicMs(), () => this.#check())
  }

  #check(): void {
    this.#atMs = Number.POSITIVE_INFINITY
    const now = this.#clock.monotonicMs()
    let next = Number.POSITIVE_INFINITY
    for (const run of this.#runs()) {
      if (run.startedMs === 0 || run.reason) continue
      if (run.deadlineMs > now) next = Math.min(next, run.deadlineMs)
      else run.abort('timeout', new ForgeError('FORGE_JOB_TIMEOUT', `${run.spec.timeoutMs} ms.`))
    }
    if (next < Number.POSITIVE_INFINITY) this.#arm(next)
  }
}
