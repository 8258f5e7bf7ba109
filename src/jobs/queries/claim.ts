import { liveLease } from '../../cluster/index.js'
import { statement } from '../../database/index.js'
import { suspectCrashes } from '../job.js'

export interface ClaimedRow {
  readonly id: string
  readonly lane: number
  readonly token: string
  readonly priority: number
  readonly attempt: number
  readonly attempts_max: number
  readonly crashes: number
  readonly claims: number
  readonly due_us: number
  readonly created_at: Date
  /** A cancel mark stands since before the claim: its handler must not start. */
  readonly cancelled: boolean
  /** The limits it passed; to be asked for again when it ends or is put off. Null: it has none. */
  readonly gates: readonly string[] | null
  readonly input: unknown
}

/**
 * Claims up to `cap` jobs of each served queue, most due first. $3 lanes, $4 the queue (a number) of each lane,
 * $5 the free slots of that queue, $6 whether a suspect may be among them: a job that lost its process before, of
 * which one runs here at a time, so that it takes no neighbours with it.
 *
 * Candidates are read per lane without locks (twice the cap, since others read the same ones), then locked by ctid
 * with the state checked again, then cut to the cap. Nothing is claimed without the live lease, in this very
 * statement: a zombie that wakes up after its rescue gets no rows.
 */
export const claimJobs = statement<ClaimedRow>(
  'forge_claim_jobs',
  (s) => `
  with served as (
    select * from unnest($3::int[], $4::int[], $5::int[]) as l(lane, queue, cap)
    where ${liveLease(s, '$1::uuid', '$2::uuid')}
  ), seen as (
    select served.queue, served.cap, head.at, head.due, head.id
    from served cross join lateral (
      select ctid as at, due, id from ${s}.job
      where job.lane = served.lane and job.state = 2
      order by job.due, job.id limit served.cap * 2
    ) as head
  ), picked as (
    select at, queue, cap from (
      select seen.*, row_number() over (partition by queue order by due, id) as place from seen
    ) as ranked where place <= cap * 2
  ), held as (
    select job.ctid as at, job.lane, job.due, job.id, job.crashes >= ${suspectCrashes} as suspect from ${s}.job
    -- Not "state = 2": where statistics say that hardly anything is available (all waits at gates, say), the planner
    -- would rather walk the whole index of available jobs than fetch these rows by their place.
    where job.ctid = any (array(select at from picked)) and job.state + 0 = 2
    for update skip locked
  ), taken as (
    select at from (
      select held.at, held.suspect, served.cap,
             row_number() over (partition by served.queue order by held.due, held.id) as place,
             row_number() over (partition by held.suspect order by held.due, held.id) as nth
      from held join served using (lane)
    ) as ranked where place <= cap and (not suspect or ($6::boolean and nth = 1))
  )
  update ${s}.job
     set state = 3, token = gen_random_uuid(), node = $1::uuid, epoch = $2::uuid, claimed_at = clock_timestamp(),
         attempt = attempt + 1, claims = claims + 1, progress = null
   where ctid = any (array(select at from taken))
  returning id, lane, token, priority, attempt, attempts_max, crashes, claims,
            (extract(epoch from due) * 1000000)::bigint as due_us, created_at, cancel_at is not null as cancelled, gates, input`,
)

/**
 * One look at everything a worker waits for: milliseconds to the next due job, whether a served lane has work, the
 * number of lanes (is one unknown here? a count, since numbers can commit out of order), which of its running jobs were
 * cancelled, and which run under its epoch without being among those it knows ($3). All that an idle worker's poll asks.
 */
export const lookAround = statement<{
  next_ms: number | null
  ready: boolean
  lanes: number
  cancelled: string[] | null
  strays: string[] | null
}>(
  'forge_look_around',
  (s) => `
  select (select extract(epoch from (min(run_at) - clock_timestamp())) * 1000
            from ${s}.job where state in (0, 4))::float8 as next_ms,
         exists (select 1 from unnest($1::int[]) as l(lane) cross join lateral (
                   select 1 from ${s}.job where job.lane = l.lane and job.state = 2
                   -- The order ties it to the index: for any one row the planner would rather read the table.
                   order by job.due limit 1) as one) as ready,
         (select count(*)::int from ${s}.job_lane) as lanes,
         (select array_agg(id) from ${s}.job where epoch = $2 and state = 3 and cancel_at is not null) as cancelled,
         (select array_agg(id) from ${s}.job where epoch = $2 and state = 3 and id <> all ($3::uuid[])
             and claimed_at < clock_timestamp() - interval '15 s') as strays`,
)

/**
 * Jobs that were claimed for this epoch by a statement whose answer never arrived: nobody runs them, and the lease is
 * in force, so rescue would never find them. Older than any answer that could still come (15 s, above).
 */
export const releaseStrays = statement<{ id: string }>(
  'forge_release_strays',
  (s) => `
  update ${s}.job
     set state = 2, attempt = attempt - 1, token = null, node = null, epoch = null, claimed_at = null
   where id = any($1::uuid[]) and epoch = $2 and state = 3 and claimed_at < clock_timestamp() - interval '15 s'
  returning id`,
)
