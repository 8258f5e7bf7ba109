import { statement } from '../../database/index.js'
import { suspectCrashes } from '../job.js'
import { type QueuesSeen, queuesSeen } from './queues.js'

/* What a worker asks and says beside its claims. */

/** The input of a claimed job that was too large to come along. */
export const readInput = statement<{ input: unknown }>(
  'forge_read_input',
  (s) => `select input from ${s}.job where id = $1 and token = $2 and state = 3`,
)

/** What a node serves, for people who ask why a job waits. A chore removes the rows of nodes that are gone. */
export const saveWorker = statement(
  'forge_save_worker',
  (s) => `
  insert into ${s}.job_worker (node, lanes) values ($1, $2)
  on conflict (node) do update set lanes = excluded.lanes`,
)

/**
 * One look at everything a worker waits for: milliseconds to the next due job, which served lanes have work, whether a
 * suspect waits, the number of lanes (is one unknown here? a count, since numbers can commit out of order), which of its
 * jobs ($2) were cancelled, which claims stand under its epoch ($3) without being among those it knows ($4), and what is said
 * of queues to its node ($6). Claims whose jobs have all ended ($5) are removed. All that an idle worker's poll asks.
 */
export interface Seen extends QueuesSeen {
  readonly next_ms: number | null
  readonly ready: number[] | null
  readonly suspects: boolean
  readonly lanes: number
  readonly cancelled: string[] | null
  readonly strays: string[] | null
}

export const lookAround = statement<Seen>(
  'forge_look_around',
  (s) => `
  with spent as (delete from ${s}.job_claim where token = any ($5::uuid[]))
  select (select extract(epoch from (min(run_at) - clock_timestamp())) * 1000
            from ${s}.job where stage = 0)::float8 as next_ms,
         (select array_agg(l.lane) from unnest($1::int[]) as l(lane) cross join lateral (
            -- The order ties it to the index: for any one row the planner would rather read the table.
            select 1 from ${s}.job where job.lane = l.lane and job.stage = 2 and job.state = 2
            order by job.due limit 1) as one) as ready,
         exists (select 1 from unnest($1::int[]) as l(lane) cross join lateral (
            select 1 from ${s}.job where job.lane = l.lane and job.stage = 2 and job.state = 2
              and job.crashes >= ${suspectCrashes}
            order by job.due limit 1) as one) as suspects,
         (select count(*)::int from ${s}.job_lane) as lanes,
         (select array_agg(mine.id) from unnest($2::uuid[]) as mine(id) cross join lateral (
            select from ${s}.job where job.id = mine.id and job.cancel_at is not null limit 1) as job) as cancelled,
         (select array_agg(token) from ${s}.job_claim where epoch = $3 and token <> all ($4::uuid[])
             and at < clock_timestamp() - interval '15 s') as strays,
         ${queuesSeen(s, '$6::uuid')}`,
)

/**
 * Claims ($1) whose answer never arrived: nobody runs their jobs, and the lease is in force, so rescue would never find
 * them. Older than any answer that could still come (15 s, above).
 */
export const releaseStrays = statement<{ id: string }>(
  'forge_release_strays',
  (s) => `
  with mine as (
    select token, ids from ${s}.job_claim
    where token = any ($1::uuid[]) and epoch = $2 and at < clock_timestamp() - interval '15 s'
  ), theirs as (
    select mine.token, job.at from mine cross join unnest(mine.ids) as taken(id) cross join lateral (
      select ctid as at from ${s}.job where job.id = taken.id and job.token = mine.token and job.state = 3
      limit 1 for update skip locked) as job
  ), over as (
    -- Only what leads to no job any more: a row that was locked is looked at again.
    delete from ${s}.job_claim as claim using mine
    where claim.token = mine.token and not exists (
      select from unnest(mine.ids) as taken(id) cross join lateral (
        select from ${s}.job where job.id = taken.id and job.token = mine.token limit 1) as job)
  )
  update ${s}.job
     set state = 2, attempt = attempt - 1, token = null, node = null, epoch = null, claimed_at = null
   where ctid = any (array(select at from theirs))
  returning id`,
)
