import { statement } from '../../database/index.js'
import { comesUp } from './limits.js'

/** Changes go by id: a filter is looked up first, without locks, and each statement checks the states once more. */

export interface LockedRow {
  readonly id: string
  readonly state: number
  readonly name: string
  readonly queue: string
}

/** Locks jobs ($1) that are in one of the states $2; rows that somebody else has locked are passed over. */
export const lockJobs = statement<LockedRow>(
  'forge_lock_jobs',
  (s) => `
  select j.id, j.state, l.name, l.queue from ${s}.job j join ${s}.job_lane l on l.id = j.lane
  where j.id = any($1::uuid[]) and j.state = any($2::smallint[])
  order by j.id for update of j skip locked`,
)

/** Marks running jobs that this transaction has locked: their handlers' signals abort. $1 ids, $2 reason. */
export const markCancelled = statement(
  'forge_mark_cancelled',
  (s) => `
  update ${s}.job set cancel_at = coalesce(cancel_at, clock_timestamp()), cancel_reason = coalesce(cancel_reason, $2)
  where id = any($1::uuid[]) and state = 3`,
)

/**
 * Ends waiting jobs that this transaction has locked: they go to history. $1 ids, $2 how long each is kept, in ms, $3
 * the final state, $4 the reason. Answers with the gates that they waited at or had passed.
 */
export const endLocked = statement<{ id: string; gates: string[] | null }>(
  'forge_end_locked',
  (s) => `
  with asked as (
    select * from unnest($1::uuid[], $2::float8[]) as a(id, keep_ms)
  ), gone as (
    delete from ${s}.job using asked where job.id = asked.id and job.state <> 3
    returning job.*, asked.keep_ms, $3::smallint as final,
              ((clock_timestamp() + asked.keep_ms * interval '1 ms') at time zone 'UTC')::date + 1 as expires_on
  ), kept as (
    insert into ${s}.job_history (id, lane, state, priority, attempt, attempts_max, crashes, claims, run_at, created_at,
           expires_on, input, errors, reason, gates, tags, parent)
    select id, lane, final, priority, attempt, attempts_max, crashes, claims, run_at, created_at, expires_on, input,
           errors, $4::text, gates, tags, parent from gone where keep_ms > 0
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, final, expires_on, count(*) from gone where keep_ms > 0 group by 1, 2, 3
  )
  select id, gates from gone`,
)

/** A job with gates has to pass them again before it runs. */
const startsBlocked = 'gates[1] is not null'
const firstStage = `case when ${startsBlocked} then 1 else 2 end`

/**
 * Brings finished jobs back with fresh attempts: out of history, into the hot table, under the same id. $1 ids, $2 the
 * states they may be in.
 */
export const retryFinished = statement<{ id: string; gates: string[] | null }>(
  'forge_retry_finished',
  (s) => `
  with chosen as (
    select id from ${s}.job_history
    where id = any($1::uuid[]) and state = any($2::smallint[]) and state in (6, 7, 8)
    order by id for update skip locked
  ), taken as (
    delete from ${s}.job_history h using chosen where h.id = chosen.id and h.state in (6, 7, 8)
    returning h.*
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, state, expires_on, -count(*) from taken group by 1, 2, 3
  )
  insert into ${s}.job (id, lane, state, stage, gate, priority, attempts_max, claims, run_at, due, created_at, input, errors,
         gates, tags, parent)
  select id, lane, ${firstStage}, ${firstStage}, gates[1], priority, attempts_max, claims,
         clock_timestamp(), clock_timestamp() + (100 - priority) * interval '6 s', created_at, input, errors,
         gates, tags, parent
  from taken order by id
  on conflict (id) do nothing
  returning id, gates`,
)

/** Does not wait any longer: retryable jobs ($1 ids) may run now. */
export const retryWaiting = statement<{ id: string; gates: string[] | null }>(
  'forge_retry_waiting',
  (s) => `
  with chosen as (
    select id from ${s}.job where id = any($1::uuid[]) and state = 4 order by id for update skip locked
  )
  update ${s}.job set ${comesUp}, run_at = clock_timestamp(),
         due = clock_timestamp() + (100 - priority) * interval '6 s'
  where id in (select id from chosen) returning id, gates`,
)

/** The inputs that a retry would run, for the validator of their definition. $1 ids, $2 names that have one. */
export const inputsToRetry = statement<{ id: string; name: string; input: unknown }>(
  'forge_inputs_to_retry',
  (s) => `
  select j.id, l.name, j.input from ${s}.job j join ${s}.job_lane l on l.id = j.lane
  where j.id = any($1::uuid[]) and l.name = any($2::text[]) and j.state = 4
  union all
  select h.id, l.name, h.input from ${s}.job_history h join ${s}.job_lane l on l.id = h.lane
  where h.id = any($1::uuid[]) and l.name = any($2::text[]) and h.state in (6, 7, 8)`,
)

/**
 * Waiting jobs get another time or urgency. $1 ids, $2 states, $3 delay in ms (null: see $4), $4 the moment (null: as it
 * was), $5 priority (null: as it was). What is due now is available, or stays at its gate; what is due later gives its
 * place up, at a gate too, and waits for its time. A retryable job whose time lies ahead stays one.
 */
export const rescheduleJobs = statement<{ id: string; state: number; queue: string; gates: string[] | null }>(
  'forge_reschedule_jobs',
  (s) => `
  with chosen as (
    select id, new_run_at, new_run_at > clock_timestamp() as later, stage_now from (
      select id, case when state in (1, 2) then state else ${firstStage} end as stage_now,
             coalesce(clock_timestamp() + $3::float8 * interval '1 ms', $4::timestamptz, run_at) as new_run_at
      from ${s}.job where id = any($1::uuid[]) and state = any($2::smallint[]) and state <> 3
      order by id for update skip locked
    ) as locked
  ), moved as (
    update ${s}.job
       set run_at = new_run_at, priority = coalesce($5::smallint, priority),
           due = new_run_at + (100 - coalesce($5::smallint, priority)) * interval '6 s',
           state = case when not later then stage_now when state = 4 then 4 else 0 end,
           stage = case when later then 0 else stage_now end,
           gate = case when later then null when state in (1, 2) then gate else gates[1] end
      from chosen where job.id = chosen.id
    returning job.id, job.lane, job.state, job.gates
  )
  select moved.id, moved.state, l.queue, moved.gates from moved join ${s}.job_lane l on l.id = moved.lane`,
)
