import {
  asRecord,
  type Deferred,
  deferred,
  ForgeError,
  invalidOption,
  unknownOption,
} from '../kernel/index.js'
import { firstFinal, type JobError, type JobState, stateName } from './job.js'
import type { PolledRow } from './queries/list.js'
import type { Follower, Results } from './results.js'

/** How a job stands at one moment, or how it ended. */
export interface JobSnapshot {
  readonly id: string
  readonly state: JobState
  readonly attempt: number
  readonly attempts: number
  /** The node that runs it, or ran it last. */
  readonly node: string | null
  readonly cancelRequested: boolean
  readonly progress: { readonly percent: number; readonly message?: string } | null
  /** Of a completed job; null before, and when it was too large to be kept. */
  readonly result: unknown
  readonly resultTooLarge: boolean
  /** Its last failed attempt. */
  readonly error: JobError | null
  readonly reason: string | null
}

export interface WatchOptions {
  /** Ends the iteration when it aborts, without an error. */
  readonly signal?: AbortSignal
}

/**
 * One watcher: an iterator that gives each new snapshot once. Whoever is slow gets the newest when he asks, not what he
 * missed.
 */
export class JobWatch implements AsyncIterableIterator<JobSnapshot>, AsyncDisposable, Follower {
  readonly id: string
  readonly untilMs = Number.POSITIVE_INFINITY
  readonly watches = true
  readonly #results: Results
  readonly #signal: AbortSignal | undefined
  readonly #asked: Deferred<IteratorResult<JobSnapshot, undefined>>[] = []
  readonly #abort = (): void => void this.return()
  #state: 'new' | 'open' | 'ended' = 'new'
  #fresh: JobSnapshot | null = null
  #last = ''
  #error: ForgeError | null = null

  constructor(id: string, results: Results, signal: AbortSignal | undefined) {
    this.id = id
    this.#results = results
    this.#signal = signal
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }

  /** @throws ForgeError FORGE_JOB_UNKNOWN, FORGE_RESULT_NOT_KEPT, FORGE_STOPPED */
  next(): Promise<IteratorResult<JobSnapshot, undefined>> {
    if (this.#state === 'new') this.#open()
    const [value, error] = [this.#fresh, this.#error]
    if (value) {
      this.#fresh = null
      return Promise.resolve({ value, done: false })
    }
    if (error) {
      this.#error = null
      return Promise.reject(error)
    }
    if (this.#state === 'ended') return Promise.resolve({ value: undefined, done: true })
    const asked = deferred<IteratorResult<JobSnapshot, undefined>>()
    this.#asked.push(asked)
    return asked.promise
  }

  return(): Promise<IteratorResult<JobSnapshot, undefined>> {
    this.#fresh = null
    this.#error = null
    this.#end()
    return Promise.resolve({ value: undefined, done: true })
  }

  hear(row: PolledRow): boolean {
    const snapshot = snapshotOf(row)
    const text = JSON.stringify(snapshot)
    const isNews = text !== this.#last
    this.#last = text
    if (isNews) this.#offer(snapshot)
    if (row.state >= firstFinal) this.#end()
    return isNews
  }

  miss(): boolean {
    const code = this.#last === '' ? 'FORGE_JOB_UNKNOWN' : 'FORGE_RESULT_NOT_KEPT'
    this.fail(new ForgeError(code, `Job ${this.id}.`))
    return true
  }

  expire(): void {
    this.#end()
  }

  fail(error: ForgeError): void {
    if (this.#state === 'ended') return
    const asked = this.#asked.shift()
    if (asked) asked.reject(error)
    else this.#error = error
    this.#end()
  }

  #open(): void {
    this.#state = 'open'
    if (this.#signal?.aborted) return this.#end()
    this.#signal?.addEventListener('abort', this.#abort, { once: true })
    this.#results.watch(this)
  }

  #offer(snapshot: JobSnapshot): void {
    const asked = this.#asked.shift()
    if (asked) asked.resolve({ value: snapshot, done: false })
    else this.#fresh = snapshot
  }

  #end(): void {
    this.#state = 'ended'
    this.#signal?.removeEventListener('abort', this.#abort)
    this.#results.unfollow(this)
    for (const asked of this.#asked.splice(0)) asked.resolve({ value: undefined, done: true })
  }
}

/** @throws ForgeError FORGE_OPTION_INVALID, FORGE_OPTION_UNKNOWN */
export function readWatching(options: unknown): AbortSignal | undefined {
  const record = asRecord(options, 'The options of watch()')
  for (const key of Object.keys(record)) if (key !== 'signal') throw unknownOption(key, ['signal'])
  const { signal } = record
  if (signal === undefined || signal instanceof AbortSignal) return signal
  throw invalidOption('Option signal', 'must be an AbortSignal')
}

function snapshotOf(row: PolledRow): JobSnapshot {
  return {
    id: row.id,
    state: stateName(row.state),
    attempt: row.attempt,
    attempts: row.attempts_max,
    node: row.node,
    cancelRequested: row.cancel_requested,
    progress: row.progress as JobSnapshot['progress'],
    result: row.result,
    resultTooLarge: row.result_too_large,
    error: row.error as JobError | null,
    reason: row.reason,
  }
}
