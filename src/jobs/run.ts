import type { JobSpec } from './define.js'

/** A job as a claim brings it. */
export interface ClaimedRow {
  readonly id: string
  /** Where its row stands, as long as nothing writes to it: '(page,item)'. */
  readonly tid: string
  readonly lane: number
  readonly attempt: number
  readonly attempts_max: number
  readonly claims: number
  readonly input: unknown
  readonly crashes: number
  /** A cancel mark stands since before the claim: its handler must not start. */
  readonly cancelled: boolean
  readonly gates: readonly string[] | null
  /** True: too large to come along; it is read when the job starts, and `input` is null. */
  readonly big: boolean
}

/** Why forge aborted a handler; null while it did not. */
export type AbortKind = 'timeout' | 'cancel' | 'stop' | 'contact' | 'lost'

/** What is known of a job when it was claimed. */
interface RunParts {
  readonly row: ClaimedRow
  readonly token: string
  readonly stamp: string | null
  readonly spec: JobSpec
  readonly queue: string
  /** Monotonic milliseconds of the claim's answer. */
  readonly claimedMs: number
}

/**
 * One claimed job on its way through this process: the record that every step of the pipeline reads and marks. Its
 * AbortController is made when somebody asks for the signal: most handlers never do.
 */
export class JobRun {
  readonly row: ClaimedRow
  /** Of the claim; the jobs of one claim share it. Every write names it together with the id. */
  readonly token: string
  readonly spec: JobSpec
  readonly queue: string
  readonly claimedMs: number
  /** Where its row stands in the table; out of date when somebody else has written to it. */
  tid: string
  /** The transaction of the claim that wrote the row there; null when another has written to it since, or it is not known. */
  stamp: string | null
  /** Where it stands in the roster. */
  place = -1
  /** Monotonic milliseconds; 0 while the handler has not started. */
  startedMs = 0
  /** The handler itself is done. */
  settled = false
  /** Its end was read: what the handler does later no longer counts. */
  concluded = false
  deadlineMs = Number.POSITIVE_INFINITY
  aborted: AbortKind | null = null
  reason: Error | null = null
  /** The node stops: patience with the handler is short, whatever it was aborted for before. */
  hurried = false
  /** `complete(result, { tx })` was called: the handler's return value no longer counts. */
  completedInTx = false
  /** A transaction of its own may still hold its row: what ends it must not wait for that. */
  heldRow = false
  #controller: AbortController | null = null
  #onAbort: ((run: JobRun) => void) | null = null

  constructor({ row, token, stamp, spec, queue, claimedMs }: RunParts) {
    this.row = row
    this.tid = row.tid
    this.token = token
    this.stamp = stamp
    this.spec = spec
    this.queue = queue
    this.claimedMs = claimedMs
  }

  get id(): string {
    return this.row.id
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.reason) this.#controller.abort(this.reason)
    }
    return this.#controller.signal
  }

  /** Aborts the handler's signal once; the first reason stands, except that a lost lease outranks all. */
  abort(kind: AbortKind, reason: Error): void {
    if (this.aborted === null || kind === 'lost') this.aborted = kind
    this.hurried ||= kind === 'stop'
    if (this.reason) return kind === 'stop' ? this.#onAbort?.(this) : undefined
    this.reason = reason
    this.#controller?.abort(reason)
    this.#onAbort?.(this)
  }

  /** Calls `listener` when forge aborts the run, or at once if it did. */
  whenAborted(listener: (run: JobRun) => void): void {
    this.#onAbort = listener
    if (this.reason) listener(this)
  }
}
