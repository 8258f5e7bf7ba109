import { sleep, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { hintReady } from './hints.js'
import { admitJobs, type Admitted, nextGates } from './queries/limits.js'

/** Gates of one call: each costs a lock of the server until the call's end. */
const gatesPerCall = 64
/** What is asked for beyond it is left to the walk. */
const askedMax = 50_000
const timedMax = 10_000
/** Gates of one step of the walk: an index step and a count each. */
const gatesPerWalk = 1_000
const pauseMsMax = 2_000
const admitting = 'the admission of jobs that wait at a limit'
/** A gate that had room, and where somebody else holds the rows that wait. */
const busyMs = 100

/**
 * Lets waiting jobs through their gates. The first request goes at once; those that come while one is under way travel
 * together in the next. The counting is the database's (function job_admit): a node that dies in the middle, or never
 * asks, leaves nothing wrong behind, only something undone, and the walk of any node finds it.
 */
export class Admission {
  readonly #runtime: Runtime
  readonly #stop = new AbortController()
  readonly #asked = new Set<string>()
  /** Full rate gates, and the monotonic milliseconds at which each lets one through. */
  readonly #timed = new Map<string, number>()
  #timer: Timer | null = null
  #timerAt = Number.POSITIVE_INFINITY
  #working: Promise<void> | null = null
  #cursor = ''

  constructor(runtime: Runtime) {
    this.#runtime = runtime
  }

  /**
   * Somebody may pass these gates now: a job came to the first of them, or one that held places in them ended or was
   * put off. Never throws, never waits.
   */
  request(gates: readonly string[] | null | undefined): void {
    if (!gates || this.#stop.signal.aborted) return
    for (const gate of gates) if (this.#asked.size < askedMax) this.#asked.add(gate)
    if (this.#asked.size > 0) this.#working ??= this.#work().finally(() => (this.#working = null))
  }

  /** Looks at the next stretch of the gates where jobs wait, and asks for those that have room. */
  async walk(): Promise<void> {
    this.#cursor = await this.#walkFrom(this.#cursor)
  }

  /** The limits of these classes changed. */
  async recheck(classes: readonly string[]): Promise<void> {
    this.request(classes)
    for (const each of classes) await this.#walkFrom(each)
  }

  /** Resolves when the call under way is done; what was asked for is found by the other nodes. */
  async stop(): Promise<void> {
    this.#stop.abort()
    this.#timer?.cancel()
    this.#asked.clear()
    this.#timed.clear()
    await this.#working
  }

  async #walkFrom(gate: string): Promise<string> {
    const rows = await this.#runtime.db.control.run(nextGates, [gate, gatesPerWalk])
    this.request(rows.filter((row) => row.free > 0).map((row) => row.gate))
    for (const row of rows) if (row.free === 0 && row.wait_ms !== null) this.#later(row.gate, row.wait_ms)
    return rows.length < gatesPerWalk ? '' : (rows.at(-1)?.gate ?? '')
  }

  async #work(): Promise<void> {
    for (let failures = 0; this.#asked.size > 0 && !this.#stop.signal.aborted;) {
      const gates = [...this.#asked].slice(0, gatesPerCall)
      for (const gate of gates) this.#asked.delete(gate)
      try {
        this.#heed(await this.#runtime.db.control.run(admitJobs, [gates]))
        this.#runtime.faults.passed(admitting)
        failures = 0
      } catch (error) {
        this.#runtime.faults.failed(admitting, error)
        for (const gate of gates) this.#asked.add(gate)
        await sleep(this.#runtime.clock, Math.min(50 * 2 ** failures++, pauseMsMax), this.#stop.signal)
      }
    }
  }

  #heed(answer: readonly Admitted[]): void {
    const moved = answer.some((row) => row.what === 'ready')
    for (const { what, name, value } of answer) {
      if (what === 'ready') hintReady(this.#runtime.signals, { lane: Number(name), waits: false, due: value })
      else if (what === 'more' && moved) this.#asked.add(name)
      else this.#later(name, value ?? busyMs)
    }
  }

  #later(gate: string, ms: number): void {
    if (this.#stop.signal.aborted || (this.#timed.size >= timedMax && !this.#timed.has(gate))) return
    const at = this.#runtime.clock.monotonicMs() + ms
    this.#timed.set(gate, at)
    if (at < this.#timerAt) this.#arm(at)
  }

  #arm(at: number): void {
    this.#timer?.cancel()
    this.#timerAt = at
    this.#timer = this.#runtime.clock.timer(at - this.#runtime.clock.monotonicMs(), () => this.#fire())
  }

  #fire(): void {
    const now = this.#runtime.clock.monotonicMs()
    const due: string[] = []
    let next = Number.POSITIVE_INFINITY
    for (const [gate, at] of this.#timed) {
      if (at <= now) due.push(gate)
      else next = Math.min(next, at)
    }
    for (const gate of due) this.#timed.delete(gate)
    this.#timerAt = Number.POSITIVE_INFINITY
    if (next < Number.POSITIVE_INFINITY) this.#arm(next)
    this.request(due)
  }
}
