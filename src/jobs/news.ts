import { news } from '../kernel/index.js'
import type { FinalState } from './job.js'

/** A job's last write is durable. */
export const jobFinished = news<{
  readonly id: string
  readonly name: string
  readonly queue: string
  readonly state: FinalState
}>('jobs.finished')

/** An attempt failed and another will come after `delayMs`. */
export const jobRetried = news<{ readonly id: string; readonly name: string; readonly delayMs: number }>(
  'jobs.retried',
)

/** Something this node wanted to write about a job was refused: the claim is no longer the current one. */
export const jobLost = news<{ readonly id: string; readonly name: string }>('jobs.lost')
