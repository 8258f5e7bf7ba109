/**
 * forge: jobs and their operation inside the Node app you already have, with PostgreSQL as the only other part.
 *
 *     import { forge } from 'forge'
 *     const node = await forge.attach(app, pool)
 */
import { createForge as makeForge, type Forge } from './forge.js'

export { createForge, type Forge } from './forge.js'
export type { ForgeNode, Health, HealthCheck } from './node.js'
export type { AttachOptions } from './options.js'
export type { Access, Authorize } from './access/index.js'
export type {
  Cluster,
  ClusterNode,
  Daemon,
  DaemonContext,
  DaemonOptions,
  Leader,
  LeaderPost,
  LeaderWork,
  Leading,
  NodeLoad,
  NodeServes,
  PastTerm,
  Term,
} from './cluster/index.js'
export {
  type DrizzleTransaction,
  fromDrizzle,
  fromKnex,
  fromKysely,
  fromPrisma,
  fromTypeOrm,
  type HostPool,
  type KnexTransaction,
  type KyselyTransaction,
  type PrismaTransaction,
  type TransactionOptions,
  type Tx,
  type TypeOrmManager,
} from './database/index.js'
export type { HostApp, UsableApp } from './host/index.js'
export {
  Discard,
  RetryAfter,
  type Changed,
  type ChangeOptions,
  type ConcurrencyOptions,
  type EndOptions,
  type EnqueueOptions,
  type EnqueueReason,
  type Explanation,
  type HandlerOutcome,
  type Job,
  type JobContext,
  type JobCounts,
  type JobDefinition,
  type JobError,
  type JobFilter,
  type PlainJob,
  type SchemaJob,
  type JobHandle,
  type Jobs,
  type JobSettings,
  type JobSnapshot,
  type JobState,
  type OnConflict,
  type Priority,
  type Queue,
  type Queues,
  type RateOptions,
  type Refused,
  type RescheduleOptions,
  type RetryOptions,
  type UniqueOptions,
  type WatchOptions,
  type Which,
} from './jobs/index.js'
export {
  AlreadyAttached,
  DuplicateName,
  ForgeError,
  isForgeError,
  NotAttached,
  type Duration,
  type ForgeErrorCode,
  type Logger,
} from './kernel/index.js'
export type { Role } from './runtime/index.js'
export type {
  ByWhom,
  Cron,
  CronOptions,
  Crons,
  JobScheduleOptions,
  Missed,
  PastTick,
  Schedule,
  ScheduleEvent,
  ScheduleOptions,
  ScheduleRule,
  Tick,
  Triggered,
} from './schedules/index.js'

const shared = globalThis as { [key: symbol]: unknown }
const key = Symbol.for('forge/1')

/** The default instance, one per process: ESM and CommonJS share it. */
export const forge: Forge = (shared[key] ??= makeForge()) as Forge
