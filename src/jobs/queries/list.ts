import { statement, unprepared } from '../../database/index.js'

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
  readonly tags: readonly string[] | null
  readonly parent: string | null
  readonly progress: unknown
  readonly input: unknown
  readonly result: unknown
  readonly result_too_large: boolean
  readonly errors: readonly unknown[] | null
  readonly reason: string | null
}

const hotColumns = `
  j.id, l.queue, l.name, j.state, j.priority, j.attempt, j.attempts_max, j.crashes, j.run_at, j.created_at,
  j.claimed_at, null::timestamptz as finished_at, j.node, j.cancel_at is not null as cancel_requested, j.tags, j.parent,
  j.progress, j.input, null::jsonb as result, false as result_too_large, j.errors, j.cancel_reason as reason`

const historyColumns = `
  j.id, l.queue, l.name, j.state, j.priority, j.attempt, j.attempts_max, j.crashes, j.run_at, j.created_at,
  j.claimed_at, j.finished_at, j.node, false as cancel_requested, j.tags, j.parent,
  null::jsonb as progress, j.input, j.result, j.result_too_large, j.errors, j.reason`

/** $1 states, $2 queue, $3 name, $4 only ids below, $5 tag, $6 parent; null means "any". For hot rows and history alike. */
const matchesRest = `
  ($1::smallint[] is null or j.state = any($1)) and ($2::text is null or l.queue = $2)
  and ($3::text is null or l.name = $3) and ($4::uuid is null or j.id < $4)
  and ($5::text is null or j.tags @> array[$5]) and ($6::uuid is null or j.parent = $6)`

/** $7 ids, or null for any. */
const matches = `${matchesRest} and ($7::uuid[] is null or j.id = any($7))`

/** $7 ids. Without the "or null": a prepared plan that must serve both walks the whole history for one id. */
const matchesIds = `${matchesRest} and j.id = any($7::uuid[])`

/** Whether a place can hold any of the states asked for: if not, it is not looked at. */
const anyHot = `($1::smallint[] is null or 4 >= any($1))`
const anyFinished = `($1::smallint[] is null or 5 <= any($1))`

/** Newest first (ids are version 7: they rise with time). A job in both places is being retried: the hot row counts. */
const listed = (condition: string) => (s: string) => `
  select * from (
    (select ${hotColumns} from ${s}.job j join ${s}.job_lane l on l.id = j.lane where ${anyHot} and ${condition}
     order by j.id desc limit $8)
    union all
    (select ${historyColumns} from ${s}.job_history j join ${s}.job_lane l on l.id = j.lane
     where ${anyFinished} and ${condition}
     order by j.id desc limit $8)
  ) as both_places order by id desc limit $8`

/** Unprepared, so that each call is planned for its own conditions: dead letters have an index, and so have children. */
export const listJobs = unprepared(statement<JobRow>('forge_list_jobs', listed(matches)))
export const listJobsById = statement<JobRow>('forge_list_jobs_by_id', listed(matchesIds))

/**
 * The ids that a filter means, oldest first, up to $8, in the states that its change applies to ($1). The waiting and
 * running ones alone: a change that cannot touch history must not walk it.
 */
export const findUnfinished = unprepared(
  statement<{ id: string }>(
    'forge_find_unfinished',
    (s) => `
    select j.id from ${s}.job j join ${s}.job_lane l on l.id = j.lane where ${matches} order by j.id limit $8`,
  ),
)

/** The same with what ended otherwise than completed. */
export const findRetryable = unprepared(
  statement<{ id: string }>(
    'forge_find_retryable',
    (s) => `
    select id from (
      (select j.id from ${s}.job j join ${s}.job_lane l on l.id = j.lane where ${anyHot} and ${matches}
       order by j.id limit $8)
      union
      (select j.id from ${s}.job_history j join ${s}.job_lane l on l.id = j.lane
       where ${anyFinished} and j.state in (6, 7, 8) and ${matches} order by j.id limit $8)
    ) as both_places order by id limit $8`,
  ),
)

/** In which state each of these jobs is; none: there is no such job. */
export const statesOfJobs = statement<{ id: string; state: number }>(
  'forge_states_of_jobs',
  (s) => `
  select id, state from ${s}.job where id = any($1::uuid[])
  union all
  select id, state from ${s}.job_history h
  where id = any($1::uuid[]) and not exists (select 1 from ${s}.job where job.id = h.id)`,
)

/** The newest jobs that failed, for the status page: by name, so that the partial index of history serves. $1 limit. */
export const lastFailures = statement<JobRow>(
  'forge_last_failures',
  (s) => `
  select * from (
    (select ${hotColumns} from ${s}.job j join ${s}.job_lane l on l.id = j.lane where j.stage = 0 and j.state = 4
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

export interface PolledRow {
  readonly id: string
  readonly state: number
  readonly attempt: number
  readonly attempts_max: number
  readonly cancel_requested: boolean
  readonly node: string | null
  readonly progress: unknown
  readonly result: unknown
  readonly result_too_large: boolean
  readonly error: unknown
  readonly reason: string | null
}

/**
 * What all waiters and watchers of a process want to know, in one statement and one snapshot: where the unfinished ones
 * of $2 stand, and how those of $1 ended. What is in neither place is not there.
 */
export const pollJobs = statement<PolledRow>(
  'forge_poll_jobs',
  (s) => `
  select j.id, j.state, j.attempt, j.attempts_max, j.cancel_at is not null as cancel_requested, j.node, j.progress,
         null::jsonb as result, false as result_too_large, j.errors -> -1 as error, j.cancel_reason as reason
  from ${s}.job j where j.id = any($2::uuid[])
  union all
  select h.id, h.state, h.attempt, h.attempts_max, false, h.node, null, h.result, h.result_too_large, h.errors -> -1,
         h.reason
  from ${s}.job_history h
  where h.id = any($1::uuid[]) and not exists (select 1 from ${s}.job where job.id = h.id)`,
)
