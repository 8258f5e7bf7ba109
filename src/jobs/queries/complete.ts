import { statement } from '../../database/index.js'
import { carried, expiry } from './history.js'

/* How jobs that have completed are handed in: see trip.ts. */

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
