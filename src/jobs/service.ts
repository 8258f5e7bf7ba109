import { deathsSeen, type Membership } from '../cluster/index.js'
import type { RowOf, Tx } from '../database/index.js'
import { ForgeError, messageOf, type Resolved, type Service, type Timer } from '../kernel/index.js'
import type { Database, Runtime } from '../runtime/index.js'
import { CommitWatch } from './commits.js'
import { Finisher } from './complete.js'
import type { JobRegistry, JobSpec } from './define.js'
import { Enqueuer, type EnqueueOptions } from './enqueue.js'
import { createHandle, type HandleParts, type JobEngine, type JobHandle } from './face.js'
import { parseReady, topics } from './hints.js'
import type { Keep } from './job.js'
import { Lanes } from './lanes.js'
import { StoredJobs } from './manage.js'
import { Manual, type ManualParts } from './manual.js'
import type { jobsOptions } from './options.js'
import { ProgressWriter } from './progress.js'
import { Retention } from './prune.js'
import { jobLost, jobRetried } from './news.js'
import { countQueues } from './queries/list.js'
import { lookAround, promoteDue } from './queries/claim.js'
import { Rescue } from './rescue.js'
import { Results } from './results.js'
import { Slots } from './slots.js'
import { Upkeep } from './upkeep.js'
import { Worker } from './worker.js'

export interface JobsParts {
  readonly runtime: Runtime
  readonly options: Resolved<typeof jobsOptions>
  readonly membership: Membership
  readonly registry: JobRegistry
  /** False on nodes without the worker role: they enqueue, look and rescue, but run nothing. */
  readonly works: boolean
  readonly transaction: <T>(fn: (tx: Tx) => Promise<T>) => Promise<T>
  /** For tests: no job runs by itself. */
  readonly manual?: ManualParts | undefined
}

const provenPollMs = 5_000
const blindPollMs = 1_000
const foreignMax = 10_000
/** A trip carries many jobs: what it cannot write at once goes by the finisher, which passes over locked rows. */
const tripLockMs = 100

/** Nobody waits at gates yet. */
const noAdmission = { request: () => {} }

/** Everything of this room that lives in one process. */
export class JobsService implements Service, JobEngine {
  readonly name = 'jobs'
  readonly jobs: StoredJobs
  /** What runs jobs one by one when a test asks for it; null on every ordinary node. */
  readonly manual: Manual | null
  /** What definitions and handlers enqueue through: this service, unless a test stands in between. */
  readonly front: JobEngine
  readonly #parts: JobsParts
  readonly #lanes: Lanes
  readonly #commits: CommitWatch
  readonly #enqueuer: Enqueuer
  readonly #results: Results
  readonly #retention: Retention
  readonly #rescue: Rescue
  readonly #upkeep: Upkeep
  readonly #slots: Slots
  readonly #worker: Worker | null
  readonly #closers: (() => Promise<void>)[] = []
  readonly #offs: (() => void)[] = []
  readonly #handleParts: HandleParts
  #poll: Timer | null = null
  #due: Timer | null = null
  #dueAt = Number.POSITIVE_INFINITY
  #looking: Promise<void> | null = null
  #lookAgain = false
  /** How many lanes the last look saw: when it rises, a lane may have come up that this process can serve. */
  #lanesSeen = -1
  #stopped = false
  /** Lanes that were announced and are not served here: they cost no second look. */
  readonly #foreign = new Set<number>()

  constructor(parts: JobsParts) {
    this.#parts = parts
    const { runtime, options } = parts
    const keep: Keep = { completedMs: options.retention.completed, discardedMs: options.retention.discarded }
    this.#results = new Results(runtime)
    const { registry } = parts
    this.jobs = new StoredJobs({ runtime, keep, registry, results: this.#results, admission: noAdmission })
    this.manual = parts.manual ? this.#makeManual(parts.manual) : null
    this.front = parts.manual?.front(this) ?? this
    this.#slots = this.manual?.slots ?? new Slots(options.queues, options.concurrency)
    this.#lanes = new Lanes(runtime.db)
    this.#commits = new CommitWatch(runtime)
    this.#enqueuer = new Enqueuer(runtime, this.#lanes, this.#commits)
    this.#retention = new Retention(runtime.db, keep, () => parts.registry.all())
    this.#rescue = new Rescue(runtime, keep)
    const { membership } = parts
    this.#upkeep = new Upkeep({ runtime, membership, retention: this.#retention, rescue: this.#rescue })
    this.#handleParts = {
      result: (id, given, committed) => this.#results.wait(id, given, committed),
      cancel: async (id, reason) => (await this.jobs.cancel(id, reason)).ids.length > 0,
    }
    this.#worker = parts.works ? this.#makeWorker(keep) : null
    this.manual?.use(this.#worker)
  }

  /** Jobs that run here now. */
  get running(): number {
    return this.#worker?.runner.size ?? 0
  }

  async start(): Promise<void> {
    const { runtime, registry } = this.#parts
    await this.#retention.ensure()
    await this.#refresh()
    this.#offs.push(registry.onChange(() => void this.#onDefinition()))
    this.#offs.push(runtime.news.on(deathsSeen, () => void this.#rescue.sweep()))
    this.#offs.push(
      runtime.news.on(jobLost, ({ id, name }) =>
        runtime.log.warn(`forge: ${name} ${id} was taken over; what this node wrote for it was refused`),
      ),
    )
    this.#offs.push(runtime.news.on(jobRetried, ({ delayMs }) => this.#armDue(delayMs)))
    this.#offs.push(runtime.signals.subscribe(topics.ready, (keys) => this.#onReady(keys)))
    this.#offs.push(runtime.signals.subscribe(topics.later, () => void this.tick()))
    this.#offs.push(runtime.signals.subscribe(topics.cancel, (keys) => this.#onCancel(keys)))
    await this.tick()
  }

  /** The first thing of a stop: nothing more is claimed here from this moment on. */
  quiesce(): void {
    this.#worker?.quiesce()
  }

  async stop(deadlineMs = 0): Promise<void> {
    this.#stopped = true
    this.#poll?.cancel()
    this.#due?.cancel()
    for (const off of this.#offs) off()
    await this.#worker?.stop(deadlineMs)
    await this.#looking
    this.#commits.stop()
    this.#results.stop()
    for (const close of this.#closers) await close()
  }

  async enqueue(name: string, input: unknown, options?: EnqueueOptions): Promise<JobHandle<unknown>> {
    const made = await this.#enqueuer.one(this.#spec(name), input, options)
    return createHandle(made, options?.tx === undefined, this.#handleParts)
  }

  async enqueueMany(
    name: string,
    inputs: readonly unknown[],
    options?: EnqueueOptions,
  ): Promise<JobHandle<unknown>[]> {
    const made = await this.#enqueuer.many(this.#spec(name), inputs, options)
    return made.map((one) => createHandle(one, options?.tx === undefined, this.#handleParts))
  }

  /** Numbers per queue, for the status page. */
  queues(): Promise<readonly { queue: string; available: number; running: number; waiting: number }[]> {
    return this.#parts.runtime.db.reader.run(countQueues, [10_000])
  }

  /** One look and what follows from it; the poll and the tests share it. A call during one leads to one more. */
  tick(): Promise<void> {
    if (this.#looking) {
      this.#lookAgain = true
      return this.#looking
    }
    this.#looking = this.#look()
      .catch((error: unknown) => this.#parts.runtime.log.debug(`forge: a look failed: ${messageOf(error)}`))
      .then(() => {
        this.#looking = null
        this.#armPoll()
        if (!this.#lookAgain || this.#stopped) return
        this.#lookAgain = false
        return this.tick()
      })
    return this.#looking
  }

  async #look(): Promise<void> {
    await this.#upkeep.round()
    if (!this.#worker) return
    const { db } = this.#parts.runtime
    const seen = await this.#lookAround(this.#worker, db)
    if (!seen) return
    if (seen.lanes !== this.#lanesSeen) await this.#refresh()
    this.#lanesSeen = seen.lanes
    if (seen.cancelled) this.#worker.runner.cancel(seen.cancelled)
    if (seen.strays) await this.#worker.releaseStrays(seen.strays)
    if (seen.ready) this.#worker.wake(seen.ready)
    if (seen.suspects) await this.#worker.claimSuspect()
    if (seen.next_ms !== null) this.#armDue(seen.next_ms)
  }

  async #lookAround(worker: Worker, { control }: Database): Promise<RowOf<typeof lookAround> | undefined> {
    const { claims, runner, laneIds } = worker
    const known = claims.tokens
    const spent = claims.takeSpent()
    try {
      const values = [laneIds, runner.ids, this.#parts.membership.epoch, known, spent]
      return (await control.run(lookAround, values))[0]
    } catch (error) {
      claims.giveSpent(spent)
      throw error
    }
  }

  #armPoll(): void {
    if (this.#stopped) return
    const { clock, signals } = this.#parts.runtime
    this.#poll?.cancel()
    this.#poll = clock.timer(signals.proven ? provenPollMs : blindPollMs, () => void this.tick())
  }

  /** Wakes up when the next waiting job is due; of several moments the earliest counts. */
  #armDue(ms: number): void {
    const { clock } = this.#parts.runtime
    const at = clock.monotonicMs() + Math.max(0, ms)
    if (ms > 2 * provenPollMs || this.#stopped || at >= this.#dueAt) return
    this.#due?.cancel()
    this.#dueAt = at
    this.#due = clock.timer(ms, () => void this.#promote())
  }

  /** The time of waiting jobs has come: they become available, and their queues are looked at. */
  async #promote(): Promise<void> {
    this.#dueAt = Number.POSITIVE_INFINITY
    try {
      const rows = await this.#parts.runtime.db.control.run(promoteDue)
      if (rows.length > 0) this.#worker?.wake(rows.map(({ lane }) => lane))
    } catch (error) {
      this.#parts.runtime.log.debug(`forge: could not promote due jobs: ${messageOf(error)}`)
    }
    void this.tick()
  }

  async #onDefinition(): Promise<void> {
    try {
      await this.#refresh()
      await this.#retention.ensure()
      this.#worker?.wake()
    } catch (error) {
      this.#lanesSeen = -1
      this.#parts.runtime.log.debug(`forge: a new definition waits for the next look: ${messageOf(error)}`)
    }
  }

  async #refresh(): Promise<void> {
    await this.#worker?.refreshLanes()
    for (const lane of this.#foreign) if (this.#worker?.frontier.serves(lane)) this.#foreign.delete(lane)
  }

  #onReady(keys: readonly string[] | null): void {
    if (!this.#worker) return
    if (keys === null) return void this.tick()
    for (const key of keys) {
      const ready = parseReady(key)
      if (ready && this.#worker.frontier.serves(ready.lane)) this.#worker.wake([ready.lane], ready.due)
      else if (ready && !this.#foreign.has(ready.lane)) this.#meet(ready.lane)
    }
  }

  /** A lane that this process does not serve, or not yet: a look tells. */
  #meet(lane: number): void {
    if (this.#foreign.size >= foreignMax) this.#foreign.clear()
    this.#foreign.add(lane)
    this.#lanesSeen = -1
    void this.tick()
  }

  #onCancel(keys: readonly string[] | null): void {
    // A hint is only a hint: the marks in the table say what was cancelled.
    if (keys === null || this.#worker?.runner.hasAny(keys)) void this.tick()
  }

  /** A definition of another instance may be handed to `job.enqueue`. */
  #spec(name: string): JobSpec {
    const spec = this.#parts.registry.get(name)
    if (!spec) throw new ForgeError('FORGE_NOT_ATTACHED', `'${name}' is not defined on this instance.`)
    return spec
  }

  #makeManual(given: ManualParts): Manual {
    const { runtime, membership, registry } = this.#parts
    const promote = () => runtime.db.control.run(promoteDue)
    return new Manual({ runtime, membership, registry, jobs: this.jobs, promote }, given)
  }

  #makeWorker(keep: Keep): Worker {
    const { runtime, membership } = this.#parts
    const registry = this.manual?.registry ?? this.#parts.registry
    const work = runtime.db.open('work', { lockMs: tripLockMs })
    const finish = runtime.db.open('finish', { lockMs: tripLockMs })
    this.#closers.push(
      () => work.close(),
      () => finish.close(),
    )
    const ensure = (): Promise<void> => this.#retention.ensure()
    const progress = new ProgressWriter(runtime)
    return new Worker({
      runtime,
      membership,
      registry,
      session: work,
      handInSession: finish,
      lanes: this.#lanes,
      slots: this.#slots,
      finisher: new Finisher({ runtime, session: finish, keep, ensurePartitions: ensure }),
      suspectEnded: () => void this.tick(),
      context: {
        runtime,
        keep,
        progress,
        enqueue: (name, input, given) => this.front.enqueue(name, input, given),
        transaction: this.#parts.transaction,
      },
    })
  }
}
