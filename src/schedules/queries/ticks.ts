import { statement } from '../../database/index.js'
import type { ScheduleSpec } from '../spec.js'
import { ms } from './ms.js'

/** What the leader does: which schedules are due, and their ticks. */

export interface DueRow {
  readonly name: string | null
  readonly spec: ScheduleSpec
  readonly rev: string
  readonly next_ms: number
  readonly planned: boolean
  readonly last_ms: number | null
  readonly now_ms: number
  /** Milliseconds until the first of those that are not due; null: none is. */
  readonly in_ms: number | null
  /** Ticks wait for a job to end. */
  readonly waiting: boolean
}

/** What is due, $1 at most, and how long until something is. One row with a null name where nothing is due. */
export const dueSchedules = statement<DueRow>(
  'forge_due_schedules',
  (s) => `
  with clock as materialized (select clock_timestamp() as now)
  select d.name, d.spec, d.rev::text as rev, ${ms('d.next_at')} as next_ms, d.planned, ${ms('d.last_at')} as last_ms,
         floor(${ms('clock.now')}) as now_ms,
         (select ${ms('(look_at - clock.now)')} from ${s}.schedule
           where look_at > clock.now order by look_at limit 1) as in_ms,
         exists (select from ${s}.schedule where waiting > 0 and paused_at is null and removed_at is null) as waiting
  from clock left join lateral (
    select name, spec, rev, next_at, planned, last_at from ${s}.schedule
    where look_at <= clock.now order by look_at limit $1) as d on true`,
)

export interface FiredRow {
  readonly name: string
  readonly planned_at: Date
  readonly outcome: 'fired' | 'waiting' | 'skipped' | 'missed'
  readonly job: string | null
}

/** $1 the leader's term, $2 what it worked out (jsonb). */
export const fireTicks = statement<FiredRow>(
  'forge_fire_ticks',
  (s) => `select name, planned_at, outcome, job from ${s}.schedule_fire($1, $2)`,
)

/**
 * The ticks of a schedule ($1), as it was looked at ($3 its rev), could not be made ($2 why): it is looked at again after
 * 1 s, and in the end every minute. Gives the milliseconds until then; no row: it was changed meanwhile, or the leader's
 * term ($4) is over.
 */
export const holdSchedule = statement<{ ms: number }>(
  'forge_hold_schedule',
  (s) => `
  update ${s}.schedule set fault = left($2, 1000), failures = failures + 1,
         held_until = clock_timestamp() + least(60, power(2, least(failures, 10))) * interval '1 s'
  where name = $1 and rev = $3 and (select ${s}.leads('scheduler', $4))
  returning ${ms('(held_until - clock_timestamp())')} as ms`,
)

/** $1 the leader's term, $2 a schedule, or null for all. */
export const releaseTicks = statement<FiredRow>(
  'forge_release_ticks',
  (s) => `select name, planned_at, outcome, job from ${s}.schedule_release($1, $2)`,
)

/** Schedules with ticks that wait for a job to end, 100 at most. */
export const waitingSchedules = statement<{ name: string; rev: string }>(
  'forge_waiting_schedules',
  (s) => `
  select name, rev::text as rev from ${s}.schedule
  where waiting > 0 and paused_at is null and removed_at is null
    and (held_until is null or held_until <= clock_timestamp())
    and not exists (select from ${s}.job where job.id = last_job) order by last_at limit 100`,
)

/**
 * Ticks and events that are older than $1 ms, so many at a time ($2). The last tick of a schedule stays, however rare it
 * is. Ids of events rise with their time.
 */
export const pruneTicks = statement<{ n: number }>(
  'forge_prune_ticks',
  (s) => `
  with old as (
    delete from ${s}.schedule_tick where ctid = any (array(
      select t.ctid from ${s}.schedule_tick as t
      where planned_at < clock_timestamp() - $1 * interval '1 ms' and fired_at < clock_timestamp() - $1 * interval '1 ms'
        and outcome <> 'waiting'
        and not exists (select from ${s}.schedule where name = t.schedule and last_at = t.planned_at)
      order by planned_at limit $2))
    returning 1
  ), events as (
    delete from ${s}.schedule_event where at < clock_timestamp() - $1 * interval '1 ms' and id in (
      select id from ${s}.schedule_event order by id limit $2)
  )
  select count(*)::int as n from old`,
)
