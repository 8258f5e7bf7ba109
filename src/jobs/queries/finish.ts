import { statement } from '../../database/index.js'
import { errorsKept } from '../job.js'
import { carried, expiry } from './history.js'

/** Every write here names id and token: zero rows means the lease is lost, and nothing else is written. */

/** Which claim of which job: the jobs of one claim share its token. */
export interface ClaimKey {
  readonly id: string
  readonly token: string
}

const keepErrors = (old: string, added: string): string => `
  case when ${added} is null then ${old}
       else jsonb_path_query_array(coalesce(${old}, '[]'), '$[last - ${errorsKept - 2} to last]') || ${added} end`

const intoHistory = (s: string): string => `
  insert into ${s}.job_history (${carried('')}, state, expires_on, result, result_too_large, errors, reason)
  select ${carried('')}, final, expires_on, result, too_large, errors, reason
  from gone where keep_ms > 0`

const intoTally = (s: string): string => `
  insert into ${s}.job_tally (lane, state, expires_on, n)
  select lane, final, expires_on, count(*) from gone where keep_ms > 0 group by 1, 2, 3`

/**
 * Moves finished jobs to history. Arrays: id, token, final state, result, result too large, error, reason, keep in
 * ms. $9: only jobs whose cancel mark is set (an abort that the worker did not know of). Answers with the tokens of the
 * accepted. Rows that somebody else has locked are passed over, so that one of them never holds up its neighbours.
 */
export const finishJobs = statement<ClaimKey>(
  'forge_finish_jobs',
  (s) => `
  with done as (
    select * from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::jsonb[], $5::boolean[], $6::jsonb[], $7::text[],
                         $8::float8[]) as d(id, token, final, result, too_large, error, reason, keep_ms)
  ), held as (
    select done.* from done join ${s}.job on job.id = done.id and job.token = done.token
    where job.state = 3 and (not $9::boolean or job.cancel_at is not null)
    for update of job skip locked
  ), gone as (
    delete from ${s}.job using held
    where job.id = held.id and job.token = held.token
    returning ${carried('job')}, held.result, held.too_large,
              -- Whoever gives up a job that was cancelled meanwhile ends it as cancelled.
              case when held.final = 7 and job.cancel_at is not null then 6 else held.final end as final,
              ${keepErrors('job.errors', 'held.error')} as errors,
              coalesce(held.reason, job.cancel_reason) as reason, held.keep_ms, ${expiry('held.keep_ms')} as expires_on
  ), kept as (${intoHistory(s)}), counted as (${intoTally(s)})
  select id, token from gone`,
)

/**
 * Puts running jobs back: retryable after a failure, scheduled after a snooze, available when handed back. Arrays:
 * id, token, state, delay in ms, attempts given back, error. A run that ended by itself shows that the job is no poison: its
 * crashes are forgotten. A job with a cancel mark is left for `finishJobs`; rows that somebody else has locked are passed
 * over.
 */
export const putBackJobs = statement<ClaimKey>(
  'forge_put_back_jobs',
  (s) => `
  with back as (
    select u.*, clock_timestamp() + u.delay_ms * interval '1 ms' as at
    from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::float8[], $5::smallint[], $6::jsonb[])
         as u(id, token, state, delay_ms, refund, error)
    join ${s}.job on job.id = u.id and job.token = u.token
    where job.state = 3 and job.cancel_at is null
    for update of job skip locked
  )
  update ${s}.job
     set state = b.state, stage = case when b.state = 2 then 2 else 0 end, attempt = job.attempt - b.refund,
         run_at = case when b.state = 2 then job.run_at else b.at end,
         due = case when b.state = 2 then job.due else b.at + (100 - job.priority) * interval '6 s' end,
         errors = ${keepErrors('job.errors', 'b.error')}, crashes = case when b.state = 2 then job.crashes else 0 end,
         token = null, node = null, epoch = null, claimed_at = null, progress = null
  from back as b
  where job.id = b.id and job.token = b.token
  returning b.id, b.token`,
)

/** Of these claims, which are still the current ones. */
export const currentClaims = statement<ClaimKey>(
  'forge_current_claims',
  (s) => `
  select job.id, job.token from unnest($1::uuid[], $2::uuid[]) as c(id, token)
  join ${s}.job on job.id = c.id and job.token = c.token and job.state = 3`,
)

/** Which of these claims are known to have finished their job: for a commit whose answer never came. */
export const finishedByToken = statement<ClaimKey>(
  'forge_finished_by_token',
  (s) => `
  select h.id, h.token from unnest($1::uuid[], $2::uuid[]) as c(id, token)
  join ${s}.job_history h on h.id = c.id and h.token = c.token`,
)

/**
 * Locks the claim for the caller's transaction: rescue and cancel pass it over until that ends. The keepalives, for this
 * transaction alone, let the server drop the lock within half a minute when the host vanishes from the network.
 */
export const lockClaim = statement<{ id: string }>(
  'forge_lock_claim',
  (s) => `
  select id, set_config('tcp_keepalives_idle', '10', true), set_config('tcp_keepalives_interval', '5', true),
         set_config('tcp_keepalives_count', '3', true)
  from ${s}.job where id = $1::uuid and token = $2::uuid and state = 3 for update`,
)

export const saveProgress = statement<{ tid: string }>(
  'forge_save_progress',
  (s) => `
  update ${s}.job set progress = $3::jsonb
  where id = $1 and token = $2 and id in (
    select id from ${s}.job where id = $1 and token = $2 and state = 3 for update skip locked)
  returning ctid::text as tid`,
)
