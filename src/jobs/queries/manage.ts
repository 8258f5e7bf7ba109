import { statement } from '../../database/index.js'
import { comesUp } from './limits.js'

export interface JobRow {
  readonly id: string
  readonly queue: string
  readonly name: string
  readonly state: number
  readonly priority: number
  readonly attempt: number
  readonly attempts_max: number
  readonly crashes: number
  readonly run_at: Date
  readonly created_at: Date
  readonly claimed_at: Date | null
  readonly finished_at: Date | null
  readonly node: string | null
  readonly cancel_requested: boolean
  readonly progress: unknown
  readonly input: unknown
  readonly result: unknown
  readonly result_too_large: boolean
  readonly errors: readonly unknown[] | null
  readonly reason: string | null
}

const hotColumns = `
  j.id, l.queue, l.name, j.state, j.priority, j.attempt, j.attempts_max, j.crashes, j.run_at, j.created_at,
  j.claimed_at, null::timestamptz as finished_at, j.node, j.cancel_at is not null as cancel_requested, j.progress,
  j.input, null::jsonb as result, false as result_too_large, j.errors, j.cancel_reason as reason`

const historyColumns = `
  j.id, l.queue, l.name, j.state, j.priority, j.attempt, j.attempts_max, j.crashes, j.run_at, j.created_at,
  j.claimed_at, j.finished_at, j.node, false as cancel_requested, null::jsonb as progress,
  j.input, j.result, j.result_too_large, j.errors, j.reason`

/** $1 states, $2 queue, $3 name, $4 only ids below; null means "any". The same for hot rows and history. */
const matchesRest = `
  ($1::smallint[] is null or j.state = any($1)) and ($2::text is null or l.queue = $2)
  and ($3::text is null or l.name = $3) and ($4::uuid is null or j.id < $4)`

/** $5 ids, or null for any. */
const matches = `${matchesRest} and ($5::uuid[] is null or j.id = any($5))`

/** $5 ids. Without the "or null": a prepared plan that must serve both walks the whole history for one id. */
const matchesIds = `${matchesRest} and j.id = any($5::uuid[])`

/** Newest first (ids are version 7: they rise with time). A job in both places is being retried: the hot row counts. */
const listed = (condition: string) => (s: string) => `
  select * from (
    (select ${hotColumns} from ${s}.job j join ${s}.job_lane l on l.id = j.lane where ${condition}
     order by j.id desc limit $6)
    union all
    (select ${historyColumns} from ${s}.job_history j join ${s}.job_lane l on l.id = j.lane where ${condition}
     order by j.id desc limit $6)
  ) as both_places order by id desc limit $6`

export const listJobs = statement<JobRow>('forge_list_jobs', listed(matches))
export const listJobsById = statement<JobRow>('forge_list_jobs_by_id', listed(matchesIds))

/** The newest jobs that failed, for the status page: by name, so that the partial index of history serves. $1 limit. */
export const lastFailures = statement<JobRow>(
  'forge_last_failures',
  (s) => `
  select * from (
    (select ${hotColumns} from ${s}.job j join ${s}.job_lane l on l.id = j.lane where j.state = 4
     order by j.run_at desc limit $1)
    union all
    (select ${historyColumns} from ${s}.job_history j join ${s}.job_lane l on l.id = j.lane where j.state in (7, 8)
     order by j.id desc limit $1)
  ) as both_places order by id desc limit $1`,
)

/** By the condition of the index that has this state. */
const unfinished = (s: string, state: number): string =>
  state === 3 ? `${s}.job_running` : `${s}.job where stage = ${state === 4 ? 0 : state} and state = ${state}`

const countState = (s: string, state: number): string => `
  select ${state}::smallint as state,
         (select count(*) from (select 1 from ${unfinished(s, state)} limit $1 + 1) as capped) as n`

/** States of unfinished jobs, each counted up to $1 + 1 (by name, so that the partial indexes serve); finished from the tally. */
export const countJobs = statement<{ state: number; n: number }>(
  'forge_count_jobs',
  (s) => `
  ${[0, 1, 2, 3, 4].map((state) => countState(s, state)).join(' union all ')}
  union all
  select state, sum(n)::bigint from ${s}.job_tally where expires_on > (now() at time zone 'UTC')::date group by state`,
)

/** Waiting and running jobs by queue, for the status page. $1 bounds the count of each queue and state. */
export const countQueues = statement<{ queue: string; available: number; running: number; waiting: number }>(
  'forge_count_queues',
  (s) => `
  select l.queue,
         sum((select count(*) from (select 1 from ${s}.job j where j.lane = l.id and j.stage = 2 and j.state = 2 limit $1) x))::bigint as available,
         coalesce(sum(r.running), 0)::bigint as running, coalesce(sum(r.waiting), 0)::bigint as waiting
  from ${s}.job_lane l
  left join (
    select lane, count(*) filter (where state = 3) as running, count(*) filter (where state in (0, 4)) as waiting
    from (select lane, state from ${s}.job_running
          union all (select lane, state from ${s}.job where stage = 0 limit $1)) as capped group by lane
  ) as r on r.lane = l.id
  group by l.queue order by l.queue limit 200`,
)

/** What the waiters of a process want to know, in one statement: finished jobs among these ids. */
export const finishedJobs = statement<{
  id: string
  state: number
  result: unknown
  result_too_large: boolean
  error: unknown
  reason: string | null
}>(
  'forge_finished_jobs',
  (s) => `
  select h.id, h.state, h.result, h.result_too_large, h.errors -> -1 as error, h.reason
  from ${s}.job_history h
  where h.id = any($1::uuid[]) and not exists (select 1 from ${s}.job where job.id = h.id)`,
)

/** Of these ids, which are unfinished; the rest is finished, or nothing of it was kept, or it never was. */
export const unfinishedJobs = statement<{ id: string }>(
  'forge_unfinished_jobs',
  (s) => `select id from ${s}.job where id = any($1::uuid[])`,
)

/** Locks what a filter matches, $6 at most; rows that somebody else has locked are passed over. */
export const lockJobs = statement<{ id: string }>(
  'forge_lock_jobs',
  (s) => `
  select j.id from ${s}.job j join ${s}.job_lane l on l.id = j.lane where ${matches}
  order by j.id limit $6 for update of j skip locked`,
)

/**
 * Cancels jobs that this transaction has locked: those that do not run go to history, those that do are marked. A
 * second statement, so that its snapshot shows what the lock waited for. $1 ids, $2 reason, $3 keep in ms.
 */
export const cancelLocked = statement<{ id: string; running: boolean; gates: string[] | null }>(
  'forge_cancel_locked',
  (s) => `
  with marked as (
    update ${s}.job set cancel_at = coalesce(cancel_at, clock_timestamp()), cancel_reason = coalesce(cancel_reason, $2)
    where id = any($1::uuid[]) and state = 3 returning id
  ), gone as (
    delete from ${s}.job where id = any($1::uuid[]) and state <> 3
    returning *, 6::smallint as final, $2::text as reason,
              ((clock_timestamp() + $3::float8 * interval '1 ms') at time zone 'UTC')::date + 1 as expires_on
  ), kept as (
    insert into ${s}.job_history (id, lane, state, priority, attempt, attempts_max, crashes, claims, run_at, created_at,
           expires_on, input, errors, reason, gates)
    select id, lane, final, priority, attempt, attempts_max, crashes, claims, run_at, created_at, expires_on, input,
           errors, reason, gates from gone where $3::float8 > 0
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, final, expires_on, count(*) from gone where $3::float8 > 0 group by 1, 2, 3
  )
  select id, true as running, null::text[] as gates from marked union all select id, false, gates from gone`,
)

/** Of these ids, which run without a cancel mark: their row was held by somebody else, such as their own transaction. */
export const uncancelledJobs = statement<{ id: string }>(
  'forge_uncancelled_jobs',
  (s) => `select id from ${s}.job where id = any($1::uuid[]) and cancel_at is null`,
)

/** Brings finished jobs back with fresh attempts: out of history, into the hot table, under the same id. */
export const retryFinished = statement<{ id: string; gates: string[] | null }>(
  'forge_retry_finished',
  (s) => `
  with chosen as (
    select j.id from ${s}.job_history j join ${s}.job_lane l on l.id = j.lane
    where ${matches} and j.state in (6, 7, 8) order by j.id limit $6
  ), taken as (
    delete from ${s}.job_history h using chosen where h.id = chosen.id and h.state in (6, 7, 8)
    returning h.*
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, state, expires_on, -count(*) from taken group by 1, 2, 3
  )
  insert into ${s}.job (id, lane, state, priority, attempts_max, claims, run_at, due, created_at, input, errors, gates, gate)
  select id, lane, case when gates is null then 2 else 1 end, priority, attempts_max, claims, clock_timestamp(),
         clock_timestamp() + (100 - priority) * interval '6 s', created_at, input, errors, gates, gates[1]
  from taken
  on conflict (id) do nothing
  returning id, gates`,
)

/** Does not wait any longer: scheduled and retryable jobs become available now. */
export const retryWaiting = statement<{ id: string; gates: string[] | null }>(
  'forge_retry_waiting',
  (s) => `
  with chosen as (
    select j.id from ${s}.job j join ${s}.job_lane l on l.id = j.lane
    where ${matches} and j.state = 4 order by j.id limit $6 for update of j skip locked
  )
  update ${s}.job set ${comesUp}, run_at = clock_timestamp(),
         due = clock_timestamp() + (100 - priority) * interval '6 s'
  where id in (select id from chosen) returning id, gates`,
)
