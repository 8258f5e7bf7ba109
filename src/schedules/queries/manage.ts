import { statement, unprepared } from '../../database/index.js'
import type { Triggered } from '../face.js'
import type { ScheduleSpec } from '../spec.js'
import type { FiredRow } from './ticks.js'
import { ms } from './ms.js'

/** What people and programs do with schedules: look, change, trigger. */

export interface ScheduleRow {
  readonly name: string
  readonly origin: 'code' | 'runtime'
  readonly spec: ScheduleSpec
  readonly next_at: Date | null
  readonly planned: boolean
  readonly waiting: number
  readonly paused_at: Date | null
  readonly paused_by: string | null
  readonly paused_reason: string | null
  readonly removed_at: Date | null
  /** The clock of the database, in ms since 1970. */
  readonly now_ms: number
  readonly fault: string | null
  readonly tick_planned_at: Date | null
  readonly tick_fired_at: Date | null
  readonly tick_outcome: FiredRow['outcome'] | null
  readonly tick_job: string | null
}

/** $1 a name, or null for all; $2 names after this one; $3 at most. Each with its last tick. */
export const listSchedules = unprepared(
  statement<ScheduleRow>(
    'forge_list_schedules',
    (s) => `
  select c.name, c.origin, c.spec, c.next_at, c.planned, c.waiting, c.paused_at, c.paused_by, c.paused_reason, c.removed_at, c.fault,
         floor(${ms('clock_timestamp()')}) as now_ms,
         t.planned_at as tick_planned_at, t.fired_at as tick_fired_at, t.outcome as tick_outcome, t.job as tick_job
  from ${s}.schedule as c left join lateral (
    select planned_at, fired_at, outcome, job from ${s}.schedule_tick
    where schedule = c.name order by schedule desc, planned_at desc limit 1) as t on true
  where ($1::text is null or c.name = $1) and ($2::text is null or c.name > $2)
  order by c.name limit $3`,
  ),
)

export interface TickRow {
  readonly planned_at: Date
  readonly fired_at: Date
  readonly late_ms: number
  readonly outcome: FiredRow['outcome']
  readonly job: string | null
  readonly by: string | null
  readonly reason: string | null
}

/** The ticks of a schedule ($1), newest first, $2 at most. */
export const listTicks = statement<TickRow>(
  'forge_list_ticks',
  (s) => `
  select planned_at, fired_at, ${ms('(fired_at - planned_at)')} as late_ms, outcome, job, by, reason
  from ${s}.schedule_tick where schedule = $1 order by schedule desc, planned_at desc limit $2`,
)

export interface EventRow {
  readonly at: Date
  readonly event: string
  readonly by: string | null
  readonly reason: string | null
}

/** What people and code did to a schedule ($1), newest first, $2 at most. */
export const listEvents = statement<EventRow>(
  'forge_list_schedule_events',
  (s) => `
  select at, event, by, reason from ${s}.schedule_event where schedule = $1 order by schedule desc, id desc limit $2`,
)

/** What a job that SQL is to make needs; no row: no process has ever defined it. With the clock of the database in ms. */
export const jobNeeds = statement<{ keyed: boolean; takes_key: boolean; debounced: boolean; now_ms: number }>(
  'forge_schedule_job_needs',
  (s) => `
  select unique_keyed or concurrency_keyed or rate_keyed as keyed,
         unique_mode is not null or concurrency_limit is not null or rate_limit is not null as takes_key,
         coalesce(unique_mode = 'debounce', false) as debounced, floor(${ms('clock_timestamp()')}) as now_ms
  from ${s}.job_definition where name = $1`,
)

/** Of these changes no row comes back where the schedule is not there, or is not one that people may change so. */
const noting = (s: string, event: string): string => `
  insert into ${s}.schedule_event (schedule, event, by, reason) select name, '${event}', $2, $3 from done`

/** $1 name, $2 by, $3 reason, $4 spec, $5 hash. */
export const createSchedule = statement<{ name: string }>(
  'forge_create_schedule',
  (s) => `
  with done as (
    insert into ${s}.schedule (name, origin, spec, hash, next_at) values ($1, 'runtime', $4, $5, clock_timestamp())
    on conflict do nothing returning name
  ), noted as (${noting(s, 'created')})
  select name from done`,
)

export const updateSchedule = statement<{ name: string }>(
  'forge_update_schedule',
  (s) => `
  with done as (
    update ${s}.schedule set spec = $4, hash = $5, rev = rev + 1, planned = false, fault = null, failures = 0, held_until = null,
           updated_at = clock_timestamp(),
           next_at = least(next_at, clock_timestamp())
    where name = $1 and origin = 'runtime' returning name
  ), noted as (${noting(s, 'changed')})
  select name from done`,
)

/** $1 name, $2 by, $3 reason. Schedules of code only where no running code defines them any more. */
export const deleteSchedule = statement<{ done: boolean }>(
  'forge_delete_schedule',
  (s) => `select ${s}.schedule_delete($1, $2, $3) as done`,
)

export const pauseSchedule = statement<{ name: string }>(
  'forge_pause_schedule',
  (s) => `
  with done as (
    update ${s}.schedule set paused_at = clock_timestamp(), paused_by = $2, paused_reason = $3, rev = rev + 1
    where name = $1 and removed_at is null returning name
  ), noted as (${noting(s, 'paused')})
  select name from done`,
)

/** What would have fired meanwhile does not. */
export const resumeSchedule = statement<{ name: string }>(
  'forge_resume_schedule',
  (s) => `
  with before as (
    select name, paused_at from ${s}.schedule where name = $1 and removed_at is null for update
  ), done as (
    update ${s}.schedule as c set paused_at = null, paused_by = null, paused_reason = null, rev = rev + 1, planned = false,
           fault = null, failures = 0, held_until = null,
           next_at = case when next_at is null then null
                          when (c.spec->'rule'->>'atMs')::float8 / 1000 <= extract(epoch from clock_timestamp()) then null
                          else clock_timestamp() end
    from before where c.name = before.name and before.paused_at is not null returning c.name
  ), noted as (${noting(s, 'resumed')})
  select name from before`,
)

export interface TriggeredRow {
  /** Null: the tick stood already, as `standing_…` says. */
  readonly outcome: Triggered['outcome'] | null
  readonly job: string | null
  readonly planned_at: Date
  readonly standing: Triggered['outcome'] | null
  readonly standing_job: string | null
}

/** $1 name, $2 by, $3 reason, $4 as of when (null: now). No row: it is not there, removed or paused. */
export const triggerSchedule = statement<TriggeredRow>(
  'forge_trigger_schedule',
  (s) => `select outcome, job, planned_at, standing, standing_job from ${s}.schedule_trigger($1, $2, $3, $4)`,
)
