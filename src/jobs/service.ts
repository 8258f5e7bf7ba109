import { type Chore, deathsSeen, type Gauges, type Membership } from '../cluster/index.js'
import type { Tx } from '../database/index.js'
import { ForgeError, messageOf, type Resolved, type Service } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { Admission } from './admit.js'
import { Catalogue } from './catalogue.js'
import { CommitWatch } from './commits.js'
import { Finisher } from './complete.js'
import type { JobRegistry, JobSpec } from './define.js'
import { Enqueuer, type EnqueueOptions } from './enqueue.js'
import { createHandle, type HandleParts, type JobEngine, type JobHandle } from './face.js'
import { topics } from './hints.js'
import type { Keep } from './job.js'
import { KeySweep } from './keys.js'
import { Lanes } from './lanes.js'
import { Looks } from './looks.js'
import { StoredJobs } from './manage.js'
import { tellMade } from './made.js'
import { Manual, type ManualParts } from './manual.js'
import type { jobsOptions } from './options.js'
import { ProgressWriter } from './progress.js'
import { Retention } from './prune.js'
import { jobLost, jobRetried } from './news.js'
import { countQueues } from './queries/list.js'
import { promoteDue } from './queries/limits.js'
import { StoredQueues } from './queues.js'
import { Rescue } from './rescue.js'
import { Results } from './results.js'
import { publishLimits } from './rules.js'
import { Slots } from './slots.js'
import { Upkeep } from './upkeep.js'
import { validate } from './validate.js'
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

/** A trip carries many jobs: what it cannot write at once goes by the finisher, which passes over locked rows. */
const tripLockMs = 100
/** One that only hands in may wait for claims of others that came too late for its jobs; none of them waits for it. */
const handInLockMs = 1_000
/** The connection of unique enqueues opens when the first comes, and closes when none came for so long. */
const keysIdleMs = 30_000

/** Everything of this room that lives in one process. */
export class JobsService implements Service, JobEngine {
  readonly name = 'jobs'
  readonly jobs: StoredJobs
  /** What runs jobs one by one when a test asks for it; null on every ordinary node. */
  readonly manual: Manual | null
  /** What definitions and handlers enqueue through: this service, unless a test stands in between. */
  readonly front: JobEngine
  readonly queues: StoredQueues
  readonly #parts: JobsParts
  readonly #lanes: Lanes
  readonly #commits: CommitWatch
  readonly #admission: Admission
  readonly #enqueuer: Enqueuer
  readonly #results: Results
  readonly #retention: Retention
  readonly #rescue: Rescue
  readonly #catalogue: Catalogue
  readonly #looks: Looks
  readonly #upkeep: Upkeep
  readonly #slots: Slots
  readonly #worker: Worker | null
  readonly #closers: (() => Promise<void>)[] = []
  readonly #offs: (() => void)[] = []
  readonly #handleParts: HandleParts

  constructor(parts: JobsParts) {
    this.#parts = parts
    const { runtime, options } = parts
    const keep: Keep = { completedMs: options.retention.completed, discardedMs: options.retention.discarded }
    this.#admission = new Admission(runtime)
    this.#results = new Results(runtime)
    const { registry } = parts
    this.jobs = new StoredJobs({
      runtime,
      keep,
      registry,
      results: this.#results,
      admission: this.#admission,
    })
    this.manual = parts.manual ? this.#makeManual(parts.manual) : null
    this.front = parts.manual?.front(this) ?? this
    this.#slots = this.manual?.slots ?? new Slots(options.queues, options.concurrency)
    this.#lanes = new Lanes(runtime.db)
    this.#commits = new CommitWatch(runtime)
    this.queues = new StoredQueues(runtime, this.#slots, options.queues)
    const [lanes, commits, slots, admission] = [this.#lanes, this.#commits, this.#slots, this.#admission]
    const keys = runtime.db.open('keys', { idleMs: keysIdleMs, generic: true })
    this.#closers.push(() => keys.close())
    this.#enqueuer = new Enqueuer({ runtime, lanes, commits, slots, admission, keys })
    this.#retention = new Retention(runtime.db, keep, () => parts.registry.all())
    this.#rescue = new Rescue(runtime, keep, () => parts.registry.all())
    const { membership } = parts
    this.#catalogue = new Catalogue(runtime.db, () => parts.registry.all())
    const [retention, rescue, catalogue] = [this.#retention, this.#rescue, this.#catalogue]
    this.#upkeep = new Upkeep({
      runtime,
      retention,
      rescue,
      catalogue,
      keys: new KeySweep(runtime.db),
      admission,
    })
    this.#handleParts = {
      result: (id, given, committed) => this.#results.wait(id, given, committed),
      cancel: async (id, reason) => (await this.jobs.cancel(id, reason)).ids.length > 0,
    }
    this.#worker = parts.works ? this.#makeWorker(keep) : null
    this.manual?.use(this.#worker)
    const { queues } = this
    const upkeep = this.#upkeep
    this.#looks = new Looks({ runtime, membership, upkeep, admission, queues, worker: this.#worker })
  }

  /** What this process carries, for others to see. */
  get gauges(): Gauges {
    const lanes = this.#worker?.frontier.lanes ?? []
    const queues = [...new Set(lanes.map(({ queue }) => queue))].sort()
    const names = [...new Set(lanes.map(({ name }) => name))].sort()
    return { running: this.running, slots: this.#slots.sizeOf(queues), serves: { queues, names } }
  }

  /** For the maintenance leader. */
  get chores(): readonly Chore[] {
    return this.#upkeep.chores
  }

  /** Jobs that run here now. */
  get running(): number {
    return this.#worker?.runner.size ?? 0
  }

  /** Slots held by handlers that went on although their job was taken from them. */
  get debt(): number {
    return this.#worker?.runner.debt ?? 0
  }

  async start(): Promise<void> {
    const { runtime, registry } = this.#parts
    await this.#retention.ensure()
    await publishLimits(this.#parts, this.#admission)
    await this.#catalogue.write()
    await this.#looks.refresh()
    this.#offs.push(registry.onChange(() => void this.#onDefinition()))
    this.#offs.push(runtime.news.on(deathsSeen, () => void this.#rescue.sweep()))
    this.#offs.push(
      runtime.news.on(jobLost, ({ id, name }) =>
        runtime.log.warn(`forge: ${name} ${id} was taken over; what this node wrote for it was refused`),
      ),
    )
    this.#offs.push(runtime.news.on(jobRetried, ({ delayMs }) => this.#looks.armDue(delayMs)))
    this.#offs.push(runtime.signals.subscribe(topics.ready, (keys) => this.#looks.onReady(keys)))
    this.#offs.push(runtime.signals.subscribe(topics.later, () => void this.tick()))
    this.#offs.push(this.queues.follow())
    this.#offs.push(this.#slots.onChange((queues) => this.#worker?.requeue(queues)))
    this.#offs.push(runtime.signals.subscribe(topics.cancel, (keys) => this.#onCancel(keys)))
    await this.tick()
  }

  /** The first thing of a stop: nothing more is claimed here from this moment on. */
  quiesce(): void {
    this.#worker?.quiesce()
  }

  /** As well, and gives back what has not started. */
  drain(): void {
    this.#worker?.drain()
  }

  async stop(deadlineMs = 0): Promise<void> {
    for (const off of this.#offs) off()
    await this.#worker?.stop(deadlineMs)
    await this.#looks.stop()
    await this.#admission.stop()
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

  /**
   * Jobs were made here by SQL: workers hear of those that are ready, admission of those that wait at a gate. What is not
   * told is found by the next look.
   */
  async tellMade(ids: readonly string[]): Promise<void> {
    const { runtime } = this.#parts
    try {
      this.#admission.request(await tellMade(runtime, ids))
    } catch (error) {
      runtime.log.debug(`forge: new jobs are left to the next look: ${messageOf(error)}`)
    }
  }

  /** Nothing to say of a job that this process does not define. @throws ForgeError FORGE_INPUT_INVALID */
  async checkInput(name: string, input: unknown): Promise<void> {
    const schema = this.#parts.registry.get(name)?.input
    await validate(schema, input, { what: `The input of '${name}'`, code: 'FORGE_INPUT_INVALID' })
  }

  /** Numbers per queue, for the status page. */
  queueCounts(): Promise<readonly { queue: string; available: number; running: number; waiting: number }[]> {
    return this.#parts.runtime.db.reader.run(countQueues, [10_000])
  }

  /** One look and what follows from it; the poll and the tests share it. */
  tick(): Promise<void> {
    return this.#looks.tick()
  }

  async #onDefinition(): Promise<void> {
    try {
      await publishLimits(this.#parts, this.#admission)
      await this.#looks.refresh()
      await this.#catalogue.write()
      await this.#retention.ensure()
      this.#worker?.wake()
    } catch (error) {
      this.#looks.forgetLanes()
      this.#parts.runtime.log.debug(`forge: a new definition waits for the next look: ${messageOf(error)}`)
    }
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
    const work = runtime.db.open('work', { lockMs: tripLockMs, generic: true })
    const finish = runtime.db.open('finish', { lockMs: handInLockMs, generic: true })
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
      admission: this.#admission,
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
