import type { Membership, NodeRow } from '../cluster/index.js'
import {
  deferred,
  type Deferred,
  errorCatalogue,
  ForgeError,
  type ForgeErrorCode,
  sleep,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { JobRegistry, type JobSpec } from './define.js'
import type { JobEngine } from './face.js'
import { describeError, type JobError, type JobState } from './job.js'
import type { Job, Jobs } from './manage.js'
import { jobFinished, jobLost, jobRetried } from './news.js'
import {
  clearClaims,
  clearHistory,
  clearJobs,
  clearKeys,
  clearRates,
  clearTally,
  endWait,
  nextJob,
  type NextJob,
  putFirst,
} from './queries/manual.js'
import { Slots } from './slots.js'

/** What forge/testing brings along when it attaches. */
export interface ManualParts {
  /** Calls a handler, with whatever has to be around it. */
  around(id: string, call: () => unknown): unknown
  /** What definitions and handlers enqueue through. */
  front(engine: JobEngine): JobEngine
}

/** How one run of one job ended. */
export interface RunEnd {
  readonly id: string
  readonly name: string
  readonly attempt: number
  /** What the run left it in: final, or `retryable`, `scheduled` (snooze), `available` (handed back). */
  readonly state: JobState
  /** What made the attempt fail, as it was thrown; undefined when it did not fail. */
  readonly error?: unknown
}

/** Which jobs may be next. */
export interface NextFilter {
  readonly queue?: string
  readonly name?: string
  /** Also jobs that wait for a time up to this one; 'infinity': for any. Default: only what is due. */
  readonly until?: Date | 'infinity'
  readonly except?: readonly string[]
}

/** One slot, for one queue, while it is open; shut otherwise. So a claim takes one job, and only when it is wanted. */
class OneSlot extends Slots {
  #open: string | null = null

  constructor() {
    super(new Map(), 1)
  }

  open(queue: string): void {
    this.#open = queue
  }

  shut(): void {
    this.#open = null
  }

  override serves(): boolean {
    return true
  }

  /** Nothing is claimed ahead. */
  override size(): number {
    return 0
  }

  override free(queue: string): number {
    return this.#open === queue ? 1 : 0
  }

  override take(): void {
    this.shut()
  }

  override release(): void {}
}

/** The registry of the instance, with every handler watched. */
class WatchedRegistry extends JobRegistry {
  readonly #inner: JobRegistry
  readonly #watch: (spec: JobSpec) => JobSpec

  constructor(inner: JobRegistry, watch: (spec: JobSpec) => JobSpec) {
    super()
    this.#inner = inner
    this.#watch = watch
  }

  override get(name: string): JobSpec | undefined {
    const spec = this.#inner.get(name)
    return spec && this.#watch(spec)
  }

  override all(): readonly JobSpec[] {
    return this.#inner.all()
  }
}

/** The part of the worker that is used here. */
interface Hands {
  readonly runner: { readonly size: number }
  refreshLanes(): Promise<void>
  wake(lanes: Iterable<number>, due: number): void
}

interface Context {
  readonly runtime: Runtime
  readonly registry: JobRegistry
  readonly membership: Membership
  readonly jobs: Jobs
  /** Makes due jobs available. */
  readonly promote: () => Promise<unknown>
}

/** One run on its way: begun when the handler is called, ended when its end is written. */
interface Awaited {
  readonly begun: Deferred<void>
  readonly ended: Deferred<JobState | null>
  thrown: unknown
}

/** A claim of a job that is available and alone in its queue's first place; a busy machine is not that slow. */
const claimMs = 10_000
const settleMs = 5_000

/**
 * A worker that runs a job only when it is told which: for tests. The pipeline is the ordinary one; what differs is that
 * its one slot is shut until a job has been put first in its queue. A handler that is running takes no slot, so that
 * it may have another job run before it goes on.
 */
export class Manual {
  readonly slots = new OneSlot()
  readonly registry: JobRegistry
  readonly #context: Context
  readonly #awaited = new Map<string, Awaited>()
  readonly #listeners = new Set<(end: RunEnd) => void>()
  #hands: Hands | null = null
  /** Only one claim at a time: which job it takes is known by there being no other. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(context: Context, parts: ManualParts) {
    this.#context = context
    this.registry = new WatchedRegistry(context.registry, (spec) => this.#watched(spec, parts))
    const { news } = context.runtime
    news.on(jobFinished, ({ id, state }) => this.#awaited.get(id)?.ended.resolve(state))
    news.on(jobRetried, ({ id }) => this.#awaited.get(id)?.ended.resolve(null))
    news.on(jobLost, ({ id }) => this.#awaited.get(id)?.ended.resolve(null))
  }

  use(worker: Hands | null): void {
    this.#hands = worker
  }

  /** Names of the jobs that are defined here. */
  get names(): readonly string[] {
    return this.#context.registry.all().map((spec) => spec.name)
  }

  /** Calls `listener` with the end of every run; returns the function that ends that. */
  onEnd(listener: (end: RunEnd) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** The next job to run, or null. */
  async next(filter: NextFilter): Promise<NextJob | null> {
    const { db, config } = this.#context.runtime
    const names = this.names.filter((name) => filter.name === undefined || name === filter.name)
    const values = [names, ['', ...config.capabilities], filter.queue ?? null, filter.until ?? null]
    const [job] = await db.control.run(nextJob, [...values, filter.except ?? []])
    return job ?? null
  }

  /** Ends a job's waiting time. It may wait on, for something else. */
  async hurry(id: string): Promise<void> {
    await this.#context.runtime.db.control.run(endWait, [id])
    await this.#context.promote()
  }

  /**
   * Runs one job that is available; null when it is not (any more).
   * @throws ForgeError FORGE_TEST_DEADLINE when this node could not claim it
   */
  async run(id: string): Promise<RunEnd | null> {
    const awaited: Awaited = { begun: deferred(), ended: deferred(), thrown: undefined }
    const turn = this.#turn.then(() => this.#claim(id, awaited))
    this.#turn = turn.catch(() => {})
    try {
      if (!(await turn)) return null
      const end = await this.#readEnd(id, awaited, await awaited.ended.promise)
      if (end) for (const listener of this.#listeners) listener(end)
      return end
    } finally {
      if (this.#awaited.get(id) === awaited) this.#awaited.delete(id)
    }
  }

  /** Other nodes that work on this schema: they would take the jobs of a test. */
  async others(): Promise<readonly NodeRow[]> {
    const { membership } = this.#context
    const nodes = await membership.nodes()
    return nodes.filter(
      ({ id, state, roles }) => id !== membership.nodeId && state === 'active' && roles.includes('worker'),
    )
  }

  /** Removes every job and all history of the schema. @throws ForgeError FORGE_TEST_DEADLINE while a handler runs on */
  async clear(): Promise<void> {
    const { clock, db } = this.#context.runtime
    const until = clock.monotonicMs() + settleMs
    while ((this.#hands?.runner.size ?? 0) > 0) {
      if (clock.monotonicMs() > until)
        throw new ForgeError(
          'FORGE_TEST_DEADLINE',
          `A handler still runs (${settleMs} ms); clear() waits for it.`,
        )
      await sleep(clock, 10)
    }
    await db.control.transaction(async (run) => {
      for (const clear of [clearJobs, clearClaims, clearHistory, clearTally, clearKeys, clearRates])
        await run(clear)
    })
  }

  async #claim(id: string, awaited: Awaited): Promise<boolean> {
    const { clock, db } = this.#context.runtime
    const [first] = await db.control.run(putFirst, [id])
    if (!first || !this.#hands) return false
    this.#awaited.set(id, awaited)
    // Before the slot opens: with the lanes of before, the claim would take another job of the queue.
    await this.#hands.refreshLanes()
    this.slots.open(first.queue)
    this.#hands.wake([first.lane], 0)
    const late = new AbortController()
    const done = Promise.race([awaited.begun.promise, awaited.ended.promise]).then(() => late.abort())
    await Promise.race([done, sleep(clock, claimMs, late.signal)])
    this.slots.shut()
    if (late.signal.aborted) return true
    throw new ForgeError('FORGE_TEST_DEADLINE', `Job ${id} was not claimed by this node (${claimMs} ms).`)
  }

  #watched(spec: JobSpec, parts: ManualParts): JobSpec {
    const run = async (input: unknown, job: unknown): Promise<unknown> => {
      const { id } = job as { id: string }
      const awaited = this.#awaited.get(id)
      awaited?.begun.resolve()
      try {
        return await parts.around(id, () => spec.run(input, job))
      } catch (error) {
        if (awaited) awaited.thrown = error
        throw error
      }
    }
    return { ...spec, run }
  }

  async #readEnd(id: string, awaited: Awaited, told: JobState | null): Promise<RunEnd | null> {
    const job = await this.#context.jobs.get(id)
    const state = told ?? job?.state
    if (state === undefined) return null
    const about = { id, name: job?.name ?? '', attempt: job?.attempt ?? 1, state }
    const failed = state === 'retryable' || state === 'discarded'
    const error = failed ? failureOf(job, awaited.thrown) : undefined
    return error === undefined ? about : { ...about, error }
  }
}

/** The value that was thrown, if that is what was stored for this attempt; else the stored one, as an error. */
function failureOf(job: Job | null, thrown: unknown): unknown {
  const stored = job?.errors.findLast((error) => error.attempt === job.attempt)
  if (!stored) return job ? undefined : thrown
  const same = describeError(thrown, stored)
  return thrown !== undefined && same.message === stored.message ? thrown : revived(stored)
}

function revived({ name, message, code }: JobError): Error {
  const known = code !== undefined && Object.hasOwn(errorCatalogue, code)
  const error = known ? new ForgeError(code as ForgeErrorCode) : new Error(message)
  return Object.assign(error, { name, message, ...(code === undefined ? {} : { code }) })
}
