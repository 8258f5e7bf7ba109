import type { JobScheduleOptions, ScheduleRule } from './spec.js'

/** Who asks, and why: written down with what was done. */
export interface ByWhom {
  readonly by?: string
  readonly reason?: string
}

/** A schedule as it stands. */
export interface Schedule {
  readonly name: string
  /** code: defined by running code; runtime: made by `create`. */
  readonly origin: 'code' | 'runtime'
  /** removed: no running code defines it any more; finished: it never fires again. */
  readonly state: 'active' | 'paused' | 'removed' | 'finished'
  /** Its expression, 'every 900 s' or 'at 2027-01-31T08:00:00.000Z'. */
  readonly rule: string
  readonly timezone: string
  /** The job that a tick makes. */
  readonly job: string
  readonly input: unknown
  readonly queue: string | null
  readonly priority: number | null
  readonly missed: 'none' | 'last' | 'all'
  readonly overlap: 'allow' | 'skip' | 'queue'
  readonly jitterMs: number
  readonly start: Date | null
  readonly end: Date | null
  /** Null: paused, removed or finished. */
  readonly next: Date | null
  /** The tick with the latest planned time. */
  readonly last: Omit<PastTick, 'by' | 'reason'> | null
  /** Ticks that wait for the job of the one before. */
  readonly waiting: number
  readonly paused: { readonly at: Date; readonly by: string | null; readonly reason: string | null } | null
  /** Why its ticks cannot be made now; they are tried again, every minute in the end. */
  readonly fault: string | null
}

/** A tick that was. */
export interface PastTick {
  readonly planned: Date
  /** When it was settled, by the clock of the database. */
  readonly fired: Date
  readonly lateMs: number
  /**
   * fired: it made the job; waiting: for the job of the tick before; skipped: that job was unfinished, or a unique job
   * stood; missed: nobody was there in time, and the policy said so.
   */
  readonly outcome: 'fired' | 'waiting' | 'skipped' | 'missed'
  /** Id of the job; null: none was made. Of one that is skipped, the unique job that stood in its way. */
  readonly job: string | null
  /** Of one that people asked for. */
  readonly by: string | null
  readonly reason: string | null
}

/** What was done to a schedule: created, changed, renamed, removed, returned, paused, resumed, triggered, deleted. */
export interface ScheduleEvent {
  readonly at: Date
  readonly event: string
  readonly by: string | null
  readonly reason: string | null
}

export interface Triggered {
  readonly planned: Date
  /** False: it made no job: that tick stood already, a unique job stands, or, with `overlap`, a job is unfinished. */
  readonly created: boolean
  /** What became of the tick, or of the one that stood. */
  readonly outcome: Exclude<PastTick['outcome'], 'missed'>
  readonly job: string | null
}

/** The schedules of this schema. */
export interface Crons {
  /** By name. `limit` 1 to 1,000, default 1,000; `after` a name. @throws ForgeError FORGE_OPTION_INVALID */
  list(options?: { readonly limit?: number; readonly after?: string }): Promise<readonly Schedule[]>
  /** Null: there is none. */
  get(name: string): Promise<Schedule | null>
  /**
   * The next `n` planned times, 1 to 1,000, default 10; none of one that fires no more.
   * @throws ForgeError FORGE_SCHEDULE_UNKNOWN, FORGE_OPTION_INVALID
   */
  preview(name: string, n?: number): Promise<readonly Date[]>
  /** Newest first; `limit` 1 to 1,000, default 50. */
  ticks(name: string, options?: { readonly limit?: number }): Promise<readonly PastTick[]>
  /** Newest first; `limit` 1 to 1,000, default 50. */
  events(name: string, options?: { readonly limit?: number }): Promise<readonly ScheduleEvent[]>
  /**
   * Fires a tick now, or as of a time that has passed: one that was missed or skipped then fires after all, and one that
   * has fired does not fire again.
   * @throws ForgeError FORGE_SCHEDULE_UNKNOWN, FORGE_SCHEDULE_PAUSED, FORGE_SCHEDULE_JOB_UNKNOWN, FORGE_OPTION_INVALID
   */
  trigger(name: string, options?: ByWhom & { readonly at?: Date | string }): Promise<Triggered>
  /** Nothing of it fires until it is resumed. @throws ForgeError FORGE_SCHEDULE_UNKNOWN */
  pause(name: string, options?: ByWhom): Promise<void>
  /** It goes on with the next tick from now; what the pause left out is not made up for. @throws ForgeError FORGE_SCHEDULE_UNKNOWN */
  resume(name: string, options?: ByWhom): Promise<void>
  /**
   * Makes a schedule that lives in the table, whatever code defines.
   * @throws ForgeError FORGE_SCHEDULE_EXISTS, FORGE_SCHEDULE_JOB_UNKNOWN, FORGE_SCHEDULE_NEVER, and those of `forge.cron`
   */
  create(name: string, rule: ScheduleRule, options: JobScheduleOptions & ByWhom): Promise<void>
  /** Replaces all of it, as `create` would make it. @throws ForgeError FORGE_SCHEDULE_UNKNOWN, FORGE_SCHEDULE_IN_CODE, and those of `create` */
  update(name: string, rule: ScheduleRule, options: JobScheduleOptions & ByWhom): Promise<void>
  /** Its history stays. @throws ForgeError FORGE_SCHEDULE_UNKNOWN, FORGE_SCHEDULE_IN_CODE */
  delete(name: string, options?: ByWhom): Promise<void>
}
