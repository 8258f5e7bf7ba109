import { asRecord, ForgeError, isUuid, sleep, storableText, unknownOption } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import { topics } from './hints.js'
import {
  firstFinal,
  type JobError,
  type JobState,
  jobStates,
  type Keep,
  stateName,
  stateNumber,
} from './job.js'
import {
  cancelLocked,
  countJobs,
  type JobRow,
  lastFailures,
  listJobs,
  listJobsById,
  lockJobs,
  retryFinished,
  retryWaiting,
  uncancelledJobs,
} from './queries/manage.js'

/** Which jobs. All conditions must hold; none at all needs `all: true` where something is changed. */
export interface JobFilter {
  readonly ids?: readonly string[]
  readonly state?: JobState | readonly JobState[]
  readonly queue?: string
  readonly name?: string
  /** Only jobs older than this id: the last one of the page before. */
  readonly before?: string
  /** At most so many; lists: 1 to 200, default 50; changes: 1 to 10,000, default 1,000. */
  readonly limit?: number
  readonly all?: boolean
}

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

/** What a change came to. */
export interface Changed {
  /** The jobs that it reached, in the order of their ids. */
  readonly ids: readonly string[]
  /** True: the limit was reached and there may be more. */
  readonly more: boolean
}

const countMax = 10_000
/** How long a cancel waits for a row that its own job's transaction holds. */
const busyMs = 5_000
const filterKnown = ['ids', 'state', 'queue', 'name', 'before', 'limit', 'all']

/** `node.jobs`: looking at jobs and changing them, from any node. */
export interface Jobs {
  /** One job, or null when there is none (it never was, or its retention has passed). */
  get(id: string): Promise<Job | null>
  /** Newest first; the next page is `{ …filter, before: last.id }`. */
  list(filter?: JobFilter): Promise<readonly Job[]>
  /** How many jobs are in each state now; finished ones as long as they are kept. */
  counts(): Promise<JobCounts>
  /**
   * Runs jobs again: finished ones that did not complete come back with fresh attempts, retryable ones stop waiting.
   * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID
   */
  retry(which: string | readonly string[] | JobFilter): Promise<Changed>
  /**
   * Cancels jobs: waiting ones end at once; running ones are marked, and their handler's signal aborts.
   * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_JOB_BUSY
   */
  cancel(which: string | readonly string[] | JobFilter, reason?: string): Promise<Changed>
}

/** The jobs of one schema, read and changed through forge's own connections. */
export class StoredJobs implements Jobs {
  readonly #runtime: Runtime
  readonly #keep: Keep
  readonly #admission: Pick<Admission, 'request'>

  constructor(runtime: Runtime, keep: Keep, admission: Pick<Admission, 'request'>) {
    this.#runtime = runtime
    this.#keep = keep
    this.#admission = admission
  }

  async get(id: string): Promise<Job | null> {
    const [row] = await this.#list({ ids: [id], limit: 1 })
    return row ?? null
  }

  list(filter: JobFilter = {}): Promise<readonly Job[]> {
    return this.#list(filter)
  }

  async counts(): Promise<JobCounts> {
    const rows = await this.#runtime.db.reader.run(countJobs, [countMax])
    const counts = Object.fromEntries(jobStates.map((state) => [state, 0])) as Record<JobState, number>
    for (const row of rows) counts[stateName(row.state)] = Math.max(0, row.n)
    const estimated = jobStates.filter((state) => stateNumber(state) < firstFinal && counts[state] > countMax)
    for (const state of estimated) counts[state] = countMax
    return { ...counts, estimated }
  }

  async retry(which: string | readonly string[] | JobFilter): Promise<Changed> {
    const { values, limit } = readChange(which)
    const { control } = this.#runtime.db
    const finished = await control.run(retryFinished, [...values, limit])
    const waiting = await control.run(retryWaiting, [...values, limit])
    const changed = [...finished, ...waiting]
    for (const row of changed) this.#admission.request(row.gates)
    const ids = changed.map((row) => row.id).sort()
    if (ids.length > 0) this.#runtime.signals.hint(topics.later, 'retry')
    return { ids, more: finished.length === limit || waiting.length === limit }
  }

  async cancel(which: string | readonly string[] | JobFilter, reason = 'cancelled'): Promise<Changed> {
    const { values, limit, ids } = readChange(which)
    const given = [storableText(reason, 1_000), this.#keep.completedMs]
    const reached = new Set<string>()
    const until = this.#runtime.clock.monotonicMs() + busyMs
    for (;;) {
      const locked = await this.#cancelOnce([...values, limit], given, reached)
      // Only for jobs that were named: a filter takes what it can reach.
      const busy = ids ? await this.#runtime.db.control.run(uncancelledJobs, [ids]) : []
      if (busy.length === 0) return { ids: [...reached].sort(), more: locked === limit }
      if (this.#runtime.clock.monotonicMs() > until)
        throw new ForgeError('FORGE_JOB_BUSY', `Job ${busy[0]?.id}.`)
      await sleep(this.#runtime.clock, 100)
    }
  }

  async #cancelOnce(
    which: readonly unknown[],
    given: readonly unknown[],
    reached: Set<string>,
  ): Promise<number> {
    const { signals, db } = this.#runtime
    const rows = await db.control.transaction(async (run) => {
      const locked = await run(lockJobs, which)
      return run(cancelLocked, [locked.map((row) => row.id), ...given])
    })
    for (const row of rows) {
      reached.add(row.id)
      this.#admission.request(row.gates)
      if (row.running) signals.hint(topics.cancel, row.id)
    }
    return rows.length
  }

  /** The newest failures, waiting for a retry or given up. */
  async failures(limit: number): Promise<readonly Job[]> {
    return (await this.#runtime.db.reader.run(lastFailures, [limit])).map(toJob)
  }

  async #list(filter: JobFilter): Promise<Job[]> {
    const { values, limit } = readFilter(filter, { limitDefault: 50, limitMax: 200 })
    const list = filter.ids ? listJobsById : listJobs
    return (await this.#runtime.db.reader.run(list, [...values, limit])).map(toJob)
  }
}

interface ReadFilter {
  /** $1 to $5 of the statements: states, queue, name, before, ids. */
  readonly values: readonly unknown[]
  readonly limit: number
  readonly conditions: number
  readonly ids: readonly string[] | null
}

function readChange(which: string | readonly string[] | JobFilter): ReadFilter {
  const filter =
    typeof which === 'string' ? { ids: [which] } : Array.isArray(which) ? { ids: which as string[] } : which
  const read = readFilter(filter as JobFilter, { limitDefault: 1_000, limitMax: 10_000 })
  if (read.conditions === 0 && (filter as JobFilter).all !== true) throw new ForgeError('FORGE_FILTER_EMPTY')
  return read
}

function readFilter(filter: JobFilter, limits: { limitDefault: number; limitMax: number }): ReadFilter {
  const record = asRecord(filter, 'The filter')
  for (const key of Object.keys(record)) if (!filterKnown.includes(key)) throw unknownOption(key, filterKnown)
  const { queue, name, before } = filter
  const states = filter.state === undefined ? null : [filter.state].flat().map(readState)
  if (filter.ids !== undefined) checkIds(filter.ids)
  // PostgreSQL writes them in lower case.
  const ids = filter.ids?.map((id) => id.toLowerCase())
  if (before !== undefined && !isUuid(before)) throw invalidFilter('before must be the id of a job')
  for (const [key, text] of Object.entries({ queue, name })) {
    if (text !== undefined && (typeof text !== 'string' || text.includes('\u0000')))
      throw invalidFilter(`${key} must be text`)
  }
  const limit = filter.limit ?? Math.max(limits.limitDefault, ids?.length ?? 0)
  if (!Number.isInteger(limit) || limit < 1 || limit > limits.limitMax) {
    throw invalidFilter(`limit must be a whole number from 1 to ${limits.limitMax}`)
  }
  const values = [states, queue ?? null, name ?? null, before ?? null, ids ?? null]
  const conditions = values.filter((value) => value !== null).length
  return { values, limit, conditions, ids: ids ?? null }
}

function checkIds(ids: readonly string[]): void {
  if (!Array.isArray(ids) || !ids.every(isUuid)) throw invalidFilter('ids must be a list of job ids (UUIDs)')
}

function readState(state: unknown): number {
  const number = jobStates.indexOf(state as JobState)
  if (number < 0) throw invalidFilter(`state must be one of ${jobStates.join(', ')}`)
  return number
}

function invalidFilter(problem: string): ForgeError {
  return new ForgeError('FORGE_FILTER_INVALID', `${problem}.`)
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
    progress: row.progress as Job['progress'],
    input: row.input,
    result: row.result,
    resultTooLarge: row.result_too_large,
    errors: (row.errors ?? []) as readonly JobError[],
    reason: row.reason,
  }
}
