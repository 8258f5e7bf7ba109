import { contactChanged, leaseLost, type Membership } from '../cluster/index.js'
import type { Session } from '../database/index.js'
import { sleep } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import { Claims } from './claims.js'
import type { Finisher } from './complete.js'
import type { ContextParts } from './context.js'
import type { JobRegistry } from './define.js'
import { Frontier } from './frontier.js'
import type { Lanes } from './lanes.js'
import { Pace } from './pace.js'
import { Pump } from './pump.js'
import { releaseStrays, saveWorker } from './queries/look.js'
import { Runner } from './runner.js'
import { Shelf } from './shelf.js'
import type { Slots } from './slots.js'
import { fetchSuspect } from './trip.js'

export interface WorkerParts {
  readonly runtime: Runtime
  readonly membership: Membership
  readonly session: Session
  readonly handInSession: Session
  readonly registry: JobRegistry
  readonly lanes: Lanes
  readonly slots: Slots
  readonly admission: Pick<Admission, 'request'>
  readonly finisher: Finisher
  readonly context: ContextParts
  /** Another suspect may be claimed now. */
  suspectEnded(): void
}

/** Claims and runs jobs: the lanes it serves (frontier), the trips (pump), and the jobs that are here (runner). */
export class Worker {
  readonly frontier = new Frontier()
  readonly claims = new Claims()
  readonly runner: Runner
  readonly #parts: WorkerParts
  readonly #pump: Pump
  readonly #offs: (() => void)[] = []
  #stopping = false
  /** The lanes that others were told of; null: they have heard nothing. */
  #saved: string | null = null
  #waiters: (() => void)[] = []

  constructor(parts: WorkerParts) {
    this.#parts = parts
    const { news } = parts.runtime
    const shared = {
      ...parts,
      frontier: this.frontier,
      claims: this.claims,
      shelf: new Shelf(),
      pace: new Pace(),
    }
    const pump = new Pump({
      ...shared,
      claimed: (brought, epoch) => this.runner.accept(brought, epoch),
      completed: (done) => this.runner.completed(done),
      refused: (done, doubted) => this.runner.refused(done, doubted),
      rested: () => this.#tellWaiters(),
    })
    this.#pump = pump
    this.runner = new Runner({
      ...shared,
      complete: (done) => pump.complete(done),
      stocked: () => pump.stocked(),
      changed: () => pump.schedule(),
    })
    this.#offs.push(
      news.on(leaseLost, ({ epoch }) => {
        this.#saved = null
        this.runner.abortAll('lost', `the lease of epoch ${epoch} is lost`)
      }),
      news.on(contactChanged, ({ trusted }) => this.#onContact(trusted)),
    )
  }

  /** What it serves is written down, for those who ask why a job waits. */
  get announced(): boolean {
    return this.#saved !== null
  }

  get laneIds(): number[] {
    return this.frontier.lanes.map((lane) => lane.id)
  }

  /** Hands back the jobs of claims that were made for this node and never reached it. */
  async releaseStrays(tokens: readonly string[]): Promise<void> {
    const unknown = tokens.filter((token) => !this.claims.knows(token))
    if (unknown.length === 0) return
    const { runtime, membership } = this.#parts
    const rows = await runtime.db.control.run(releaseStrays, [unknown, membership.epoch])
    if (rows.length === 0) return
    runtime.log.warn(`forge: handed back ${rows.length} jobs whose claim was answered to a broken connection`)
    this.wake()
  }

  /** Reads again which lanes exist for the names and capabilities of this process, and says so to the others. */
  async refreshLanes(): Promise<void> {
    const { registry, lanes, slots, runtime } = this.#parts
    const here = new Set(['', ...runtime.config.capabilities])
    const specs = registry.all()
    await lanes.resolve(specs.map(({ name, queue, capability }) => ({ name, queue, capability, version: 1 })))
    const all = await lanes.ofNames(specs.map((spec) => spec.name))
    this.frontier.serve(
      all.filter((lane) => lane.version === 1 && here.has(lane.capability) && slots.serves(lane.queue)),
    )
    const serves = this.laneIds.join()
    if (serves === this.#saved) return
    this.#pump.schedule()
    await runtime.db.control.run(saveWorker, [runtime.nodeId, this.laneIds])
    this.#saved = serves
  }

  /** Looks for work in these lanes (null: in all), from this due (epoch seconds; null: anywhere) on. */
  wake(lanes: Iterable<number> | null = null, due: number | null = null): void {
    this.frontier.wake(lanes, due)
    this.#pump.schedule()
  }

  /** Something changed about these queues: of paused ones what did not start goes back, others may have room now. */
  requeue(queues: readonly string[]): void {
    const { slots } = this.#parts
    this.runner.unload(new Set(queues.filter((queue) => slots.isPaused(queue))))
    this.wake(this.frontier.lanes.filter(({ queue }) => queues.includes(queue)).map(({ id }) => id))
  }

  /**
   * Claims one job that lost its process before, if none is here. It takes the next slot of its queue: under a backlog none would
   * ever be free for it.
   */
  async claimSuspect(): Promise<void> {
    const { session, membership } = this.#parts
    const { epoch } = membership
    if (this.#stopping || !membership.trusted || this.laneIds.length === 0 || this.runner.hasSuspect) return
    this.runner.accept(await fetchSuspect(session, membership, this.laneIds), epoch)
  }

  #onContact(trusted: boolean): void {
    if (trusted) return this.wake()
    this.runner.unload()
    this.runner.abortAll('contact', 'contact with PostgreSQL is lost')
  }

  /** Claims nothing more from this moment on. */
  quiesce(): void {
    this.#stopping = true
    this.runner.refuse()
    void this.#pump.quiesce()
  }

  /** Claims nothing more, and gives back what has not started. What runs goes on. */
  drain(): void {
    this.quiesce()
    this.runner.unload()
  }

  /**
   * Claims nothing more, lets handlers finish for `deadlineMs`, then aborts them and hands their jobs back without
   * using an attempt. Resolves when every end is durable, or PostgreSQL does not take it.
   */
  async stop(deadlineMs: number): Promise<void> {
    const { runtime, finisher } = this.#parts
    this.quiesce()
    await this.#pump.quiesce()
    this.runner.unload()
    await this.#quiet(deadlineMs)
    this.runner.abortAll('stop', 'the node stops')
    await this.#quiet(3_000)
    this.claims.abandon()
    finisher.abandon()
    for (const { run } of this.#pump.abandon()) this.runner.lost(run)
    await sleep(runtime.clock, 0)
    this.runner.stop()
    for (const off of this.#offs) off()
  }

  #tellWaiters(): void {
    for (const tell of this.#waiters.splice(0)) tell()
  }

  #quiet(ms: number): Promise<void> {
    if (this.runner.size === 0) return Promise.resolve()
    const done = new AbortController()
    const ask = (): void => {
      if (this.runner.size === 0) done.abort()
      else this.#waiters.push(ask)
    }
    ask()
    return sleep(this.#parts.runtime.clock, ms, done.signal)
  }
}
