import { statement, unprepared } from '../database/index.js'
import type { ScheduleSpec } from './spec.js'

/** Every statement on the tables of this room: schedule, schedule_tick, schedule_event, schedule_version, schedule_offer. */

const ms = (moment: string): string => `(extract(epoch from ${moment}) * 1000)::float8`

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
 * 1 s, and in the end every minute. Gives the milliseconds until then; no row: it was changed meanwhile.
 */
export const holdSchedule = statement<{ ms: number }>(
  'forge_hold_schedule',
  (s) => `
  update ${s}.schedule set fault = left($2, 1000), failures = failures + 1,
         held_until = clock_timestamp() + least(60, power(2, least(failures, 10))) * interval '1 s'
  where name = $1 and rev = $3
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

/** What the code of a node ($1) defines: names ($2), hashes ($3) and specs ($4, a JSON list). */
export const offerSchedules = statement(
  'forge_offer_schedules',
  (s) => `
  with known as (
    insert into ${s}.schedule_version (name, hash, spec)
    select each.name, each.hash, spec.value
    from unnest($2::text[], $3::text[]) with ordinality as each(name, hash, n)
    join jsonb_array_elements($4::jsonb) with ordinality as spec(value, n) using (n)
    order by each.name, each.hash on conflict do nothing
  ), gone as (
    delete from ${s}.schedule_offer as o where node <> $1 and not exists (select from ${s}.node where node.id = o.node)
  )
  insert into ${s}.schedule_offer (node, names, hashes) values ($1, $2, $3)
  on conflict (node) do update set names = excluded.names, hashes = excluded.hashes`,
)

export interface ReconciledRow {
  readonly name: string
  readonly event: 'created' | 'changed' | 'renamed' | 'removed' | 'returned' | 'conflict'
  readonly detail: string | null
}

export const reconcile = statement<ReconciledRow>(
  'forge_reconcile_schedules',
  (s) => `select name, event, detail from ${s}.schedule_reconcile()`,
)

/** Which nodes offer schedules, as one value that changes when they do. */
export const offersNow = statement<{ seen: string }>(
  'forge_schedule_offers_now',
  (s) => `
  select coalesce(string_agg(o.node::text || o.xmin::text, ',' order by o.node), '')
         || exists (select from ${s}.schedule where orphaned_at is not null and removed_at is null)::text as seen
  from ${s}.schedule_offer as o join ${s}.node on node.id = o.node and node.state <> 'dead'`,
)

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

/** What a job that SQL is to make needs; no row: no process has ever defined it. */
export const jobNeeds = statement<{ keyed: boolean; takes_key: boolean; debounced: boolean }>(
  'forge_schedule_job_needs',
  (s) => `
  select unique_keyed or concurrency_keyed or rate_keyed as keyed,
         unique_mode is not null or concurrency_limit is not null or rate_limit is not null as takes_key,
         coalesce(unique_mode = 'debounce', false) as debounced
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

/** Schedules of code only where no running code defines them any more. */
export const deleteSchedule = statement<{ name: string }>(
  'forge_delete_schedule',
  (s) => `
  with done as (
    delete from ${s}.schedule where name = $1 and (origin = 'runtime' or removed_at is not null) returning name
  ), left_over as (
    update ${s}.schedule_tick set outcome = 'skipped'
    where schedule = $1 and outcome = 'waiting' and exists (select from done)
  ), noted as (${noting(s, 'deleted')})
  select name from done`,
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
  readonly outcome: FiredRow['outcome'] | null
  readonly job: string | null
  readonly planned_at: Date
  readonly standing: FiredRow['outcome'] | null
  readonly standing_job: string | null
}

/** $1 name, $2 by, $3 reason, $4 as of when (null: now). No row: it is not there, removed or paused. */
export const triggerSchedule = statement<TriggeredRow>(
  'forge_trigger_schedule',
  (s) => `select outcome, job, planned_at, standing, standing_job from ${s}.schedule_trigger($1, $2, $3, $4)`,
)

/** Ticks and events that are older than $1 ms, so many at a time ($2). Ids of events rise with their time. */
export const pruneTicks = statement<{ n: number }>(
  'forge_prune_ticks',
  (s) => `
  with old as (
    delete from ${s}.schedule_tick where ctid = any (array(
      select ctid from ${s}.schedule_tick
      where planned_at < clock_timestamp() - $1 * interval '1 ms' and fired_at < clock_timestamp() - $1 * interval '1 ms'
        and outcome <> 'waiting' order by planned_at limit $2))
    returning 1
  ), events as (
    delete from ${s}.schedule_event where at < clock_timestamp() - $1 * interval '1 ms' and id in (
      select id from ${s}.schedule_event order by id limit $2)
  )
  select count(*)::int as n from old`,
)
