import { contactChanged, leaseLost, type Membership } from '../cluster/index.js'
import type { Session } from '../database/index.js'
import { ForgeError, messageOf, sleep } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import { claim, type ServedLane } from './claim.js'
import type { Finisher } from './complete.js'
import type { ContextParts } from './context.js'
import type { JobRegistry, JobSpec } from './define.js'
import { execute, type Execution } from './execute.js'
import { hintReady } from './hints.js'
import { decide, type Outcome, suspectCrashes } from './job.js'
import type { Lanes } from './lanes.js'
import { jobFinished, jobLost, jobRetried } from './news.js'
import { type ClaimedRow, releaseStrays } from './queries/claim.js'
import { abortRun, type AbortKind, type JobRun } from './run.js'
import type { Slots } from './slots.js'

export interface WorkerParts {
  readonly runtime: Runtime
  readonly membership: Membership
  readonly session: Session
  readonly registry: JobRegistry
  readonly lanes: Lanes
  readonly slots: Slots
  readonly finisher: Finisher
  readonly admission: Admission
  readonly context: ContextParts
}

/** The end of a job that was claimed but must not start. */
function unstarted(kind: 'handBack' | 'cancel'): Execution {
  return { outcome: Promise.resolve({ kind }), settled: Promise.resolve() }
}

/** It lost its process before, and may have been the cause. */
function isSuspect(run: JobRun): boolean {
  return run.row.crashes >= suspectCrashes
}

/** Failed claims in a row are spaced out up to this. */
const pauseMsMax = 2_000

/**
 * Claims and runs. One claim is under way at a time; a wake-up during it leads to one more, never to a second beside
 * it, so that a storm of hints costs one claim per round trip at most.
 */
export class Worker {
  readonly #parts: WorkerParts
  readonly #runs = new Map<string, JobRun>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #stop = new AbortController()
  readonly #offs: (() => void)[] = []
  #served: readonly ServedLane[] = []
  /** Queues that may hold more than was claimed. */
  readonly #hungry = new Set<string>()
  #claiming: Promise<void> | null = null

  constructor(parts: WorkerParts) {
    this.#parts = parts
    const { news } = parts.runtime
    this.#offs.push(
      news.on(leaseLost, ({ epoch }) => this.#abortAll('lost', `the lease of epoch ${epoch} is lost`)),
    )
    this.#offs.push(news.on(contactChanged, ({ trusted }) => this.#onContact(trusted)))
  }

  get laneIds(): number[] {
    return this.#served.map((lane) => lane.id)
  }

  get running(): number {
    return this.#runs.size
  }

  get runningIds(): string[] {
    return [...this.#runs.keys()]
  }

  /** Hands back jobs that were claimed for this node and never reached it. */
  async releaseStrays(ids: readonly string[]): Promise<void> {
    const unknown = ids.filter((id) => !this.#runs.has(id))
    if (unknown.length === 0) return
    const { runtime, membership } = this.#parts
    const rows = await runtime.db.control.run(releaseStrays, [unknown, membership.epoch])
    runtime.log.warn(`forge: handed back ${rows.length} jobs whose claim was answered to a broken connection`)
    this.wake()
  }

  /** Reads again which lanes exist for the names and capabilities of this process. */
  async refreshLanes(): Promise<void> {
    const { registry, lanes, slots, runtime } = this.#parts
    const here = new Set(['', ...runtime.config.capabilities])
    const specs = registry.all()
    await lanes.resolve(specs.map(({ name, queue, capability }) => ({ name, queue, capability, version: 1 })))
    const all = await lanes.ofNames(specs.map((spec) => spec.name))
    this.#served = all.filter(
      (lane) => lane.version === 1 && here.has(lane.capability) && slots.serves(lane.queue),
    )
  }

  /** True when every one of these queues has a lane here; false: a lane may be new. */
  knows(queues: readonly string[]): boolean {
    return queues.every((queue) => this.#served.some((lane) => lane.queue === queue))
  }

  /** Looks for work in these queues, or in all of them. */
  wake(queues?: readonly string[]): void {
    for (const queue of queues ?? this.#served.map((lane) => lane.queue)) this.#hungry.add(queue)
    this.#feed()
  }

  #feed(): void {
    if (this.#stop.signal.aborted) return
    this.#claiming ??= this.#claimAll().finally(() => {
      this.#claiming = null
      if (this.#wanted().size > 0 && this.#parts.membership.trusted) this.#feed()
    })
  }

  #wanted(): Map<string, number> {
    const free = new Map<string, number>()
    for (const queue of this.#hungry) {
      const slots = this.#parts.slots.free(queue)
      if (slots > 0) free.set(queue, slots)
    }
    return free
  }

  async #claimAll(): Promise<void> {
    for (let failures = 0; ;) {
      const free = this.#wanted()
      if (free.size === 0 || this.#stop.signal.aborted || !this.#parts.membership.trusted) return
      try {
        await this.#claimOnce(free)
        failures = 0
      } catch (error) {
        this.#parts.runtime.log.debug(`forge: a claim failed: ${messageOf(error)}`)
        await sleep(this.#parts.runtime.clock, Math.min(100 * 2 ** failures++, pauseMsMax), this.#stop.signal)
      }
    }
  }

  async #claimOnce(free: ReadonlyMap<string, number>): Promise<void> {
    for (const queue of free.keys()) this.#hungry.delete(queue)
    const { session, membership } = this.#parts
    const { epoch } = membership
    const suspects = ![...this.#runs.values()].some(isSuspect)
    let rows: ClaimedRow[]
    try {
      rows = await claim(session, membership, { lanes: this.#served, free, suspects })
    } catch (error) {
      for (const queue of free.keys()) this.#hungry.add(queue)
      throw error
    }
    const lanes = new Map(this.#served.map((lane) => [lane.id, lane]))
    const got = new Map<string, number>()
    for (const row of rows) {
      const lane = lanes.get(row.lane) as ServedLane
      got.set(lane.queue, (got.get(lane.queue) ?? 0) + 1)
      // The answer may come after a stop, or after the lease was lost: then nothing of it starts.
      const refused = this.#stop.signal.aborted || !membership.trusted || membership.epoch !== epoch
      this.#begin(row, lane, refused)
    }
    for (const [queue, slots] of free) if ((got.get(queue) ?? 0) >= slots) this.#hungry.add(queue)
  }

  #begin(row: ClaimedRow, lane: ServedLane, refused: boolean): void {
    // Definitions are replaced, never removed.
    const spec = this.#parts.registry.get(lane.name) as JobSpec
    const { clock } = this.#parts.runtime
    const run: JobRun = {
      row,
      spec,
      queue: lane.queue,
      controller: new AbortController(),
      deadlineMs: clock.monotonicMs() + spec.timeoutMs,
      aborted: null,
      completedInTx: false,
    }
    this.#runs.set(row.id, run)
    this.#parts.slots.take(lane.queue)
    const task = this.#live(run, refused).finally(() => this.#tasks.delete(task))
    this.#tasks.add(task)
  }

  /** From the first line of the handler to the durable end; never rejects. */
  async #live(run: JobRun, refused: boolean): Promise<void> {
    const { outcome, settled } = refused ? unstarted('handBack') : this.#start(run)
    void settled.then(() => this.#freeSlot(run))
    await this.#conclude(run, await outcome)
    this.#parts.context.progress.forget(run)
    if (this.#runs.get(run.row.id) === run) this.#runs.delete(run.row.id)
    // While it ran no other suspect was claimed; there may be one.
    if (isSuspect(run)) this.wake([run.queue])
  }

  #start(run: JobRun): Execution {
    return run.row.cancelled ? unstarted('cancel') : execute(run, this.#parts.context)
  }

  #freeSlot(run: JobRun): void {
    this.#parts.slots.release(run.queue)
    this.#feed()
  }

  async #conclude(run: JobRun, outcome: Outcome): Promise<void> {
    const { news } = this.#parts.runtime
    const about = { id: run.row.id, name: run.spec.name }
    const counted = { attempt: run.row.attempt, attemptsMax: run.row.attempts_max }
    const finish = decide(outcome, counted, { retry: run.spec.retry, random: Math.random() })
    if (finish.kind === 'none') {
      if (outcome.kind === 'lost') news.emit(jobLost, about)
      else {
        this.#parts.admission.request(run.row.gates)
        news.emit(jobFinished, { ...about, queue: run.queue, state: 'completed' })
      }
      return
    }
    const fate = await this.#parts.finisher.write(run, finish)
    if (finish.kind === 'again' && finish.state === 'available')
      hintReady(this.#parts.runtime.signals, run.queue, false)
    if (fate === 'lost') return news.emit(jobLost, about)
    this.#parts.admission.request(run.row.gates)
    if (finish.kind === 'final' || fate === 'cancelled') {
      const state = finish.kind === 'final' ? finish.state : 'cancelled'
      return news.emit(jobFinished, { ...about, queue: run.queue, state })
    }
    news.emit(jobRetried, { ...about, delayMs: finish.delayMs })
  }

  /** True when one of these jobs runs here. */
  runsAny(ids: readonly string[]): boolean {
    return ids.some((id) => this.#runs.has(id))
  }

  /** A cancel mark was seen for these ids. */
  cancel(ids: readonly string[]): void {
    for (const id of ids) {
      const run = this.#runs.get(id)
      if (!run) continue
      abortRun(run, 'cancel', new ForgeError('FORGE_JOB_CANCELLED', `Job ${id}.`))
    }
  }

  #onContact(trusted: boolean): void {
    if (trusted) this.wake()
    else this.#abortAll('contact', 'contact with PostgreSQL is lost')
  }

  #abortAll(kind: AbortKind, why: string): void {
    const reason = new ForgeError(kind === 'stop' ? 'FORGE_STOPPED' : 'FORGE_LEASE_LOST', `${why}.`)
    for (const run of this.#runs.values()) abortRun(run, kind, reason)
  }

  /** Claims nothing more from this moment on. */
  quiesce(): void {
    this.#stop.abort()
  }

  /**
   * Claims nothing more, lets handlers finish for `deadlineMs`, then aborts them and hands their jobs back without
   * using an attempt. Resolves when every end is durable, or PostgreSQL does not take it.
   */
  async stop(deadlineMs: number): Promise<void> {
    this.quiesce()
    await this.#claiming
    const { clock } = this.#parts.runtime
    await this.#quiet(deadlineMs)
    this.#abortAll('stop', 'the node stops')
    await this.#quiet(3_000)
    this.#parts.finisher.abandon()
    await sleep(clock, 0)
    for (const off of this.#offs) off()
  }

  #quiet(ms: number): Promise<void> {
    if (this.#tasks.size === 0) return Promise.resolve()
    const done = new AbortController()
    void Promise.all(this.#tasks).then(() => done.abort())
    return sleep(this.#parts.runtime.clock, ms, done.signal)
  }
}
