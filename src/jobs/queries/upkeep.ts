import { knownNode, undeadLease } from '../../cluster/index.js'
import { statement } from '../../database/index.js'
import { expiry } from './history.js'

const lostError = (node: string): string => `
  jsonb_build_object('at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                     'attempt', attempt, 'name', 'LeaseLost', 'code', 'FORGE_LEASE_LOST',
                     'message', 'The node ' || ${node} || ' was lost while it ran this job.', 'node', ${node})`

/** Running jobs of claims that have no lease any more, as `lost(at)`; `which` says more of them. */
const lostJobs = (s: string, which: string): string => `
  dead as (
    select token, ids from ${s}.job_claim where not ${undeadLease(s, 'job_claim.node', 'job_claim.epoch')}
  ), lost as (
    select job.at from dead cross join unnest(dead.ids) as taken(id)
    -- One by one, by the key: a join might read the whole table.
    cross join lateral (
      select job.ctid as at from ${s}.job where job.id = taken.id and job.token = dead.token and job.state = 3 and ${which}
      limit 1 for update skip locked) as job
    limit 1000
  )`

/**
 * Takes back every running job whose claim has no lease any more. The attempt is given back, since the handler did
 * not fail; the crash is counted; those at the last crash ($1) are left to `quarantineJobs`. One guarded statement: a
 * completion that commits first moves the row away, one that comes later finds no token. Locked rows are left to the
 * next sweep.
 */
export const rescueJobs = statement<{ id: string; lane: number }>(
  'forge_rescue_jobs',
  (s) => `
  with ${lostJobs(s, 'job.crashes + 1 < $1')}
  update ${s}.job
     set state = 2, attempt = attempt - 1, crashes = crashes + 1,
         errors = jsonb_path_query_array(coalesce(errors, '[]'), '$[last - 8 to last]') || ${lostError('job.node')},
         token = null, node = null, epoch = null, claimed_at = null, progress = null
   where ctid = any (array(select at from lost))
  returning id, lane`,
)

/**
 * Jobs that lost their process $1 times: set aside in history as quarantined, kept for $2 ms; those of the names $3 for the
 * ms $4.
 */
export const quarantineJobs = statement<{ id: string; lane: number }>(
  'forge_quarantine_jobs',
  (s) => `
  with ${lostJobs(s, 'job.crashes + 1 >= $1')}, gone as (
    delete from ${s}.job where ctid = any (array(select at from lost))
    returning *, ${expiry(`coalesce((
      select own.ms from unnest($3::text[], $4::float8[]) as own(name, ms) join ${s}.job_lane l on l.name = own.name
      where l.id = job.lane), $2::float8)`)} as expires_on
  ), kept as (
    insert into ${s}.job_history (id, lane, state, priority, attempt, attempts_max, crashes, claims, run_at, created_at,
           claimed_at, expires_on, node, input, gates, tags, parent, unique_key, errors, reason)
    select id, lane, 8, priority, attempt, attempts_max, crashes + 1, claims, run_at, created_at, claimed_at, expires_on,
           node, input, gates, tags, parent, unique_key, coalesce(errors, '[]') || ${lostError('gone.node')},
           crashes + 1 || ' processes were lost while they ran it' from gone
  ), counted as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, 8, expires_on, count(*) from gone group by lane, expires_on
  )
  select id, lane from gone`,
)

/** Claims without a lease whose jobs have all been taken back, or had ended before. */
export const forgetClaims = statement(
  'forge_forget_claims',
  (s) => `
  delete from ${s}.job_claim
  where not ${undeadLease(s, 'job_claim.node', 'job_claim.epoch')}
    and not exists (select from unnest(job_claim.ids) as taken(id) cross join lateral (
                      select from ${s}.job where job.id = taken.id and job.token = job_claim.token limit 1) as job)`,
)

/** Makes the partitions for what finishes today and in the $2 days to come, for each of the keeps $1 (in days). */
export const ensurePartitions = statement<{ made: number }>(
  'forge_ensure_partitions',
  (s) => `
  select count(*) filter (where ${s}.job_history_partition(day))::int as made
  from (select distinct (now() at time zone 'UTC')::date + keep + ahead as day
        from unnest($1::int[]) as keep, generate_series(1, 2 + $2::int) as ahead order by 1) as days`,
)

/** Of the days on which what finishes today and in the $2 days to come expires, those without a partition. */
export const missingPartitions = statement<{ day: string }>(
  'forge_missing_partitions',
  (s) => `
  select to_char(day, 'YYYY-MM-DD') as day
  from (select distinct (now() at time zone 'UTC')::date + keep + ahead as day
        from unnest($1::int[]) as keep, generate_series(1, 1 + $2::int) as ahead) as days
  where to_regclass('${s}.job_history_' || to_char(day, 'YYYYMMDD')) is null order by 1`,
)

export const prunePartition = statement<{ dropped: string | null }>(
  'forge_prune_partition',
  (s) => `select ${s}.job_history_prune() as dropped`,
)

/**
 * What nodes have said about the lanes they serve, when they are gone altogether. The dead ones are left: they may come
 * back under another epoch, and whoever asks counts living nodes only.
 */
export const forgetServed = statement(
  'forge_forget_served',
  (s) => `delete from ${s}.job_worker where not ${knownNode(s, 'job_worker.node')}`,
)

/** Folds the deltas of the tally into one row per lane, state and day, a bounded number at a time. */
export const foldTally = statement<{ folded: number }>(
  'forge_fold_tally',
  (s) => `
  with taken as (
    delete from ${s}.job_tally where ctid = any (array(
      select ctid from ${s}.job_tally limit 10000 for update skip locked))
    returning lane, state, expires_on, n
  ), folded as (
    insert into ${s}.job_tally (lane, state, expires_on, n)
    select lane, state, expires_on, sum(n) from taken group by 1, 2, 3 having sum(n) <> 0 returning 1
  )
  select (select count(*) from taken)::int as folded`,
)

/** The next $3 keys after ($1, $2), in their order, and which of them nothing holds any more. */
export const walkKeys = statement<{ scope: string; key: string; job: string; stale: boolean }>(
  'forge_walk_keys',
  (s) => `
  select u.scope, u.key, u.job_id as job,
         (u.expires_at is null or u.expires_at <= clock_timestamp())
           and not exists (select from ${s}.job where job.id = u.job_id) as stale
  from (select * from ${s}.job_unique where (scope, key) > ($1, $2) order by scope, key limit $3) as u
  order by u.scope, u.key`,
)

/**
 * Forgets keys ($1 scopes, $2 keys) that were held by these jobs ($3), which are gone. A key that another job took over
 * meanwhile names another job; keys that somebody has locked are left to the next round.
 */
export const forgetKeys = statement<{ key: string }>(
  'forge_forget_keys',
  (s) => `
  delete from ${s}.job_unique where ctid = any (array(
    select u.ctid from unnest($1::text[], $2::text[], $3::uuid[]) as w(scope, key, job)
    join ${s}.job_unique as u on u.scope = w.scope and u.key = w.key and u.job_id = w.job
    where u.expires_at is null or u.expires_at <= clock_timestamp()
    for update of u skip locked))
  returning key`,
)

/** Claims that have had no lease for a minute and longer, although any node would take their jobs back. */
export const orphanedClaims = statement<{ n: number }>(
  'forge_orphaned_claims',
  (s) => `
  select count(*)::int as n from ${s}.job_claim
  where at < clock_timestamp() - interval '60 s' and not ${undeadLease(s, 'job_claim.node', 'job_claim.epoch')}
    and exists (select from ${s}.node where died_at is null or died_at < clock_timestamp() - interval '60 s')`,
)
