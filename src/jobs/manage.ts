import type { Runtime } from '../runtime/index.js'
import {
  type ChangeOptions,
  type ChangeParts,
  Changer,
  type Changed,
  type EndOptions,
  type RescheduleOptions,
} from './change.js'
import { explainJob, type Explanation } from './explain.js'
import { type JobFilter, listLimits, readFilter, readId, type Which } from './filter.js'
import { JobRegistry } from './define.js'
import {
  firstFinal,
  type JobError,
  type JobState,
  jobStates,
  type Keep,
  stateName,
  stateNumber,
} from './job.js'
import { countJobs, type JobRow, lastFailures, listJobs, listJobsById } from './queries/list.js'
import { Results } from './results.js'
import { cancel, discard, readEnding, readRescheduling, readRetrying, reschedule, retry } from './verbs.js'
import { type JobSnapshot, JobWatch, readWatching, type WatchOptions } from './watch.js'

/** A job as people and programs look at it. */
export interface Job {
  readonly id: string
  readonly name: string
  readonly queue: string
  readonly state: JobState
  readonly priority: number
  readonly attempt: number
  readonly attempts: number
  readonly crashes: number
  readonly runAt: Date
  readonly createdAt: Date
  readonly startedAt: Date | null
  readonly finishedAt: Date | null
  /** The node that runs it, or ran it last. */
  readonly node: string | null
  readonly cancelRequested: boolean
  readonly tags: readonly string[]
  /** The job that it was enqueued for. */
  readonly parent: string | null
  readonly progress: { readonly percent: number; readonly message?: string } | null
  readonly input: unknown
  readonly result: unknown
  readonly resultTooLarge: boolean
  /** The last ten failed attempts, oldest first. */
  readonly errors: readonly JobError[]
  readonly reason: string | null
}

/** Numbers of jobs per state; `estimated` names the states with more than 10,000, which are counted to there. */
export type JobCounts = { readonly [State in JobState]: number } & { readonly estimated: readonly JobState[] }

const countMax = 10_000

/**
 * `node.jobs`: looking at jobs and changing them, from any node. Whatever looks for long, or meets a lock, ends as
 * FORGE_STATEMENT_TIMEOUT or FORGE_LOCK_TIMEOUT.
 */
export interface Jobs {
  /** One job, or null when there is none (it never was, or its retention has passed). */
  get(id: string): Promise<Job | null>
  /** Newest first; the next page is `{ …filter, before: last.id }`. */
  list(filter?: JobFilter): Promise<readonly Job[]>
  /** How many jobs are in each state now; finished ones as long as they are kept. */
  counts(): Promise<JobCounts>
  /**
   * Runs jobs again: finished ones that did not complete come back with fresh attempts, retryable ones stop waiting.
   * Inputs that their definition, where this process has it, would not accept any more are refused one by one, and so are
   * unique jobs whose key another job has by now.
   * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_JOB_BUSY
   */
  retry(which: Which, options?: ChangeOptions): Promise<Changed>
  /**
   * Cancels jobs: waiting ones end at once; running ones are marked, and their handler's signal aborts.
   * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_JOB_BUSY
   */
  cancel(which: Which, reason?: string | EndOptions): Promise<Changed>
  /**
   * Gives waiting jobs up: they end as dead letters. Running jobs are not reached: cancel those, or let their handler
   * decide.
   * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_JOB_BUSY
   */
  discard(which: Which, reason?: string | EndOptions): Promise<Changed>
  /**
   * Gives waiting jobs another time, by the database clock, or another priority. What is due then runs; what was about to
   * run and is put off waits as scheduled; a retryable job stays one.
   * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_OPTION_INVALID, FORGE_JOB_BUSY
   */
  reschedule(which: Which, options: RescheduleOptions): Promise<Changed>
  /** Why a job does not run now, in one sentence; or where it runs, or how it ended. */
  explain(id: string): Promise<Explanation>
  /**
   * How the job stands, now and at each change, until it is final; then the iteration ends. A slow reader gets the
   * newest, not what he missed. The iteration throws FORGE_JOB_UNKNOWN when there is no such job, FORGE_RESULT_NOT_KEPT
   * when it vanishes, FORGE_STOPPED when the node stops.
   * @throws ForgeError FORGE_FILTER_INVALID, FORGE_OPTION_INVALID
   */
  watch(id: string, options?: WatchOptions): AsyncIterableIterator<JobSnapshot> & AsyncDisposable
}

export interface StoredJobsParts extends ChangeParts {
  readonly results: Results
}

/** The jobs of one schema, read and changed through forge's own connections. */
export class StoredJobs implements Jobs {
  readonly #runtime: Runtime
  readonly #parts: StoredJobsParts
  readonly #changer: Changer

  constructor(parts: StoredJobsParts) {
    this.#runtime = parts.runtime
    this.#parts = parts
    this.#changer = new Changer(parts)
  }

  async get(id: string): Promise<Job | null> {
    const [row] = await this.list({ ids: [id], limit: 1 })
    return row ?? null
  }

  async list(filter: JobFilter = {}): Promise<readonly Job[]> {
    const { states, rest, limit, ids } = readFilter(filter, listLimits)
    const rows = await this.#runtime.db.reader.run(ids ? listJobsById : listJobs, [states, ...rest, limit])
    return rows.map(toJob)
  }

  async counts(): Promise<JobCounts> {
    const rows = await this.#runtime.db.reader.run(countJobs, [countMax])
    const counts = Object.fromEntries(jobStates.map((state) => [state, 0])) as Record<JobState, number>
    for (const row of rows) counts[stateName(row.state)] = Math.max(0, row.n)
    const estimated = jobStates.filter((state) => stateNumber(state) < firstFinal && counts[state] > countMax)
    for (const state of estimated) counts[state] = countMax
    return { ...counts, estimated }
  }

  async retry(which: Which, options?: ChangeOptions): Promise<Changed> {
    return this.#changer.change(which, retry(this.#parts), readRetrying(options))
  }

  async cancel(which: Which, given?: string | EndOptions): Promise<Changed> {
    const { reason, dryRun } = readEnding(given, 'cancelled')
    return this.#changer.change(which, cancel(this.#parts, reason), dryRun)
  }

  async discard(which: Which, given?: string | EndOptions): Promise<Changed> {
    const { reason, dryRun } = readEnding(given, 'discarded')
    return this.#changer.change(which, discard(this.#parts, reason), dryRun)
  }

  async reschedule(which: Which, options: RescheduleOptions): Promise<Changed> {
    const given = readRescheduling(options)
    return this.#changer.change(which, reschedule(this.#parts, given), given.dryRun)
  }

  async explain(id: string): Promise<Explanation> {
    return explainJob(this.#runtime, readId(id))
  }

  watch(id: string, options?: WatchOptions): JobWatch {
    return new JobWatch(readId(id), this.#parts.results, readWatching(options))
  }

  /** The newest failures, waiting for a retry or given up. */
  async failures(limit: number): Promise<readonly Job[]> {
    return (await this.#runtime.db.reader.run(lastFailures, [limit])).map(toJob)
  }
}

/** The same without a node, for the command: nothing is defined, and the admission of what waits at gates is left to the nodes. */
export function openJobs(runtime: Runtime, keep: Keep): StoredJobs {
  const admission = { request: () => {} }
  return new StoredJobs({
    runtime,
    keep,
    registry: new JobRegistry(),
    results: new Results(runtime),
    admission,
  })
}

function toJob(row: JobRow): Job {
  return {
    id: row.id,
    name: row.name,
    queue: row.queue,
    state: stateName(row.state),
    priority: row.priority,
    attempt: row.attempt,
    attempts: row.attempts_max,
    crashes: row.crashes,
    runAt: row.run_at,
    createdAt: row.created_at,
    startedAt: row.claimed_at,
    finishedAt: row.finished_at,
    node: row.node,
    cancelRequested: row.cancel_requested,
    tags: row.tags ?? [],
    parent: row.parent,
    progress: row.progress as Job['progress'],
    input: row.input,
    result: row.result,
    resultTooLarge: row.result_too_large,
    errors: (row.errors ?? []) as readonly JobError[],
    reason: row.reason,
  }
}
