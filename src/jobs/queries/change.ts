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
           expires_on, input, errors, reason, gates, tags, parent, unique_key)
    select id, lane, final, priority, attempt, attempts_max, crashes, claims, run_at, created_at, expires_on, input,
           errors, $4::text, gates, tags, parent, unique_key from gone where keep_ms > 0
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, final, expires_on, count(*) from gone where keep_ms > 0 group by 1, 2, 3
  )
  select id, gates from gone`,
)

/** A job with gates has to pass them again before it runs. */
const startsBlocked = 'gates[1] is not null'
const firstStage = `case when ${startsBlocked} then 1 else 2 end`

/** The names and keys of finished jobs ($1 ids, $2 states) whose definition is unique, as it stands now. */
const keyed = (s: string): string => `
  ${s}.job_history h join ${s}.job_lane l on l.id = h.lane
  join ${s}.job_definition d on d.name = l.name and d.unique_mode is not null`
const isKeyed = `
  h.id = any($1::uuid[]) and h.state = any($2::smallint[]) and h.state in (6, 7, 8) and h.unique_key is not null`

/** Of finished jobs ($1 ids, $2 states), those that need a key to come back. */
export const keyedJobs = statement<{ id: string }>(
  'forge_keyed_jobs',
  (s) => `select h.id from ${keyed(s)} where ${isKeyed}`,
)

/**
 * Locks the keys of such jobs, in the order in which an enqueue does, after waiting for whoever holds them. Who may have
 * them is judged by the next statement, whose snapshot is younger than the lock.
 */
export const lockKeys = statement(
  'forge_lock_keys',
  (s) => `
  insert into ${s}.job_unique as u (scope, key, job_id)
  select distinct on (l.name, h.unique_key) l.name, h.unique_key, h.id from ${keyed(s)} where ${isKeyed}
  order by l.name, h.unique_key, h.id
  on conflict (scope, key) do update set job_id = u.job_id where false`,
)

/**
 * Of such jobs, those whose key another job has: one for which an enqueue of this key would make no job, or another of
 * these. Of several that could have it the one that had it last does, else the oldest.
 */
export const keysTaken = statement<{ id: string; holder: string }>(
  'forge_keys_taken',
  (s) => `
  select id, coalesce(holder, first) as holder from (
    select h.id, first_value(h.id) over (partition by l.name, h.unique_key order by u.job_id = h.id desc, h.id) as first,
           case when u.job_id <> h.id and not coalesce(
                  case when d.unique_mode = 'debounce' then j.id is null or j.state = 3 and u.expires_at <= clock_timestamp()
                       when u.expires_at is null then j.id is null else u.expires_at <= clock_timestamp() end, false)
                then u.job_id end as holder
    from ${keyed(s)} join ${s}.job_unique u on u.scope = l.name and u.key = h.unique_key
    left join ${s}.job j on j.id = u.job_id
    where ${isKeyed}
  ) as asked where holder is not null or first <> id order by id`,
)

/**
 * Brings finished jobs back with fresh attempts: out of history, into the hot table, under the same id. $1 ids, $2 the
 * states they may be in. Unique ones get their key, which is locked and free.
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
  ), held as (
    update ${s}.job_unique u set job_id = t.id, expires_at = clock_timestamp() + d.unique_for_ms * interval '1 ms'
    from taken t join ${s}.job_lane l on l.id = t.lane
    join ${s}.job_definition d on d.name = l.name and d.unique_mode is not null
    where u.scope = l.name and u.key = t.unique_key
  )
  insert into ${s}.job (id, lane, state, stage, gate, priority, attempts_max, claims, run_at, due, created_at, input, errors,
         gates, tags, parent, unique_key)
  select id, lane, ${firstStage}, ${firstStage}, gates[1], priority, attempts_max, claims,
         clock_timestamp(), clock_timestamp() + (100 - priority) * interval '6 s', created_at, input, errors,
         gates, tags, parent, unique_key
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
