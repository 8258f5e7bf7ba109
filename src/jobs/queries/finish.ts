import { statement } from '../../database/index.js'
import { errorsKept } from '../job.js'

/** Every write here names id and token: zero rows means the lease is lost, and nothing else is written. */

/** Which claim of which job: the jobs of one claim share its token. */
export interface ClaimKey {
  readonly id: string
  readonly token: string
}

/** The day (UTC) on which what is kept for so long may go: rounded up, so never early. */
const expiry = (keepMs: string): string =>
  `((clock_timestamp() + ${keepMs} * interval '1 ms') at time zone 'UTC')::date + 1`

const columns =
  'id, lane, priority, attempt, attempts_max, crashes, claims, run_at, created_at, claimed_at, token, node, input, gates, tags, parent'

const carried = (table: string, without: readonly string[] = []): string =>
  columns
    .split(', ')
    .filter((column) => !without.includes(column))
    .map((column) => (table ? `${table}.${column}` : column))
    .join(', ')

/**
 * Completed jobs on their way to history, as the first part of a statement that may go on with a claim: `missed.ids`
 * are those whose claim is not the current one, or whose row was moved. Seven parameters from number `n`: ids, the tid
 * of each row as the claim left it (half the cost of looking it up by its id), the class of each (a number from 1),
 * results (null: all of them are null), of each class the token and the keep in ms, and tokens of claims whose jobs have
 * all ended. A row that somebody else has locked is waited for: what may hold a lock goes by `finishJobs`.
 */
export const finishing = (s: string, n: number): string => `
  done as (
    select d.id, d.tid, d.result, ($${n + 4}::uuid[])[d.class] as token,
           (array(select case when k.ms > 0 then ${expiry('k.ms')} end
                  from unnest($${n + 5}::float8[]) with ordinality as k(ms, n) order by k.n))[d.class] as expires_on
    from unnest($${n}::uuid[], $${n + 1}::tid[], $${n + 2}::int[], $${n + 3}::jsonb[]) as d(id, tid, class, result)
  ), gone as (
    delete from ${s}.job using done where job.ctid = done.tid and job.id = done.id and job.token = done.token
    -- What is read more than once comes first: the rest of the row is not looked at then.
    returning job.lane, done.expires_on, ${carried('job', ['lane'])}, job.errors, done.result
  ), kept as (
    insert into ${s}.job_history (lane, expires_on, ${carried('', ['lane'])}, errors, result, state)
    select gone.*, 5 from gone where expires_on is not null
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, 5, expires_on, count(*) from gone where expires_on is not null group by lane, expires_on
  ), spent as (
    delete from ${s}.job_claim where token = any ($${n + 6}::uuid[])
  ), missed as (
    -- Hardly ever any: counting costs less than looking for them.
    select case when (select count(*) from gone) < cardinality($${n}::uuid[])
                then (select string_agg(d.id::text, ',') from unnest($${n}::uuid[]) as d(id)
                      where not exists (select from gone where gone.id = d.id)) end as ids
  )`

/** Hands in completed jobs when there is nothing to claim. $1 to $7 as of `finishing`. */
export const completeJobs = statement<{ missed: string | null }>(
  'forge_complete_jobs',
  (s) => `with ${finishing(s, 1)} select ids as missed from missed`,
)

/**
 * The same for jobs of one claim that have no result, which costs a third less: a row is still as the claim wrote it when
 * the transaction of the claim wrote what stands in its place, so the two tell which job it is, and nothing is joined. That
 * holds within one file of the table: VACUUM FULL moves rows as they are.
 * $1 tids, $2 token, $3 transaction of the claim and file of the table, $4 keep in ms, $5 tokens of claims whose jobs have all ended. Answers
 * null when all were accepted, else the ids of those that were, joined by commas.
 */
export const completeClaim = statement<{ accepted: string | null }>(
  'forge_complete_claim',
  (s) => `
  with expiry as (
    select ${expiry('$4::float8')} as day
  ), gone as (
    delete from ${s}.job where ctid = any ($1::tid[]) and token = $2::uuid and xmin = (select split_part($3::text, '/', 1)::xid)
       and (select split_part($3, '/', 2) = pg_relation_filenode('${s}.job'::regclass)::text)
    returning lane, ${carried('', ['lane'])}, errors
  ), kept as (
    insert into ${s}.job_history (lane, ${carried('', ['lane'])}, errors, state, expires_on)
    select gone.*, 5, (select day from expiry) from gone where $4::float8 > 0
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, 5, (select day from expiry), count(*) from gone where $4::float8 > 0 group by lane
  ), spent as (
    delete from ${s}.job_claim where token = any ($5::uuid[])
  )
  select case when (select count(*) from gone) < cardinality($1::tid[])
              then (select coalesce(string_agg(id::text, ','), '') from gone) end as accepted`,
)

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
 * id, token, state, delay in ms, attempts given back, error. A job with a cancel mark is left for `finishJobs`;
 * rows that somebody else has locked are passed over.
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
         errors = ${keepErrors('job.errors', 'b.error')},
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
