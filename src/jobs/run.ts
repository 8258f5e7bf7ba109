import type { JobSpec } from './define.js'
import type { ClaimedRow } from './queries/claim.js'

/** Why forge aborted a handler; null while it did not. */
export type AbortKind = 'timeout' | 'cancel' | 'stop' | 'contact' | 'lost'

/** One claimed job on its way through this process: the record that every step of the pipeline reads and marks. */
export interface JobRun {
  readonly row: ClaimedRow
  readonly spec: JobSpec
  readonly queue: string
  readonly controller: AbortController
  /** Monotonic milliseconds at which the timeout falls. */
  readonly deadlineMs: number
  aborted: AbortKind | null
  /** `complete(result, { tx })` was called: the handler's return value no longer counts. */
  completedInTx: boolean
}

/** Aborts the handler's signal once; the first reason stands, except that a lost lease outranks all. */
export function abortRun(run: JobRun, kind: AbortKind, reason: Error): void {
  if (run.aborted === null || kind === 'lost') run.aborted = kind
  if (!run.controller.signal.aborted) run.controller.abort(reason)
}
