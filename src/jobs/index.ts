/**
 * jobs: define, enqueue, claim, run, finish.
 *
 * Model: unfinished jobs live in one hot table, finished ones in history partitions by day of expiry. A job belongs to
 * a lane (queue, name, capability); workers claim from the lanes they serve, most due first. Its states and what leads
 * from one to the next stand in `job.ts`.
 *
 * Limits: a limited job waits blocked at its gates (`limits.ts`), and becomes available when the database lets it through
 * (`admit.ts`); the claim knows nothing of limits. Who holds a place is read off the jobs, so no place can leak.
 *
 * When things fail: every write of a worker names the claim's random token, so what a zombie sends is refused. Jobs of
 * a lost lease are taken back by any node (`rescue.ts`). A worker that cannot reach PostgreSQL keeps its results and
 * repeats the write until it is taken or refused (`complete.ts`). Changes by people go by id, in small portions, and say
 * what they did not reach (`change.ts`). Hints only make things sooner; polling finds all.
 */
export type { Changed, ChangeOptions, EndOptions, Refused, RescheduleOptions } from './change.js'
export { JobRegistry, type JobSettings, readDefinition, readPriority, type RetryOptions } from './define.js'
export { checkName } from './names.js'
export type { EnqueueOptions, EnqueueReason } from './enqueue.js'
export type { Explanation } from './explain.js'
export {
  createDefineJob,
  type DefineJob,
  type JobContext,
  type JobDefinition,
  type JobEngine,
  type JobHandle,
  type PlainJob,
  type SchemaJob,
} from './face.js'
export { type JobError, type JobState, jobStates, type Priority } from './job.js'
export { type Job, type JobCounts, type Jobs, openJobs } from './manage.js'
export type { JobFilter, Which } from './filter.js'
export { type Manual, type ManualParts, type NextFilter, type RunEnd } from './manual.js'
export type { ConcurrencyOptions, RateOptions } from './limits.js'
export { jobsOptions } from './options.js'
export { Discard, type HandlerOutcome, RetryAfter } from './outcome.js'
export { tellMade } from './made.js'
export { keepDays } from './prune.js'
export { countQueues } from './queries/list.js'
export { missingPartitions, orphanedClaims } from './queries/upkeep.js'
export type { Queue, Queues } from './queues.js'
export { JobsService } from './service.js'
export type { OnConflict, UniqueOptions } from './unique.js'
export type { JobSnapshot, WatchOptions } from './watch.js'
