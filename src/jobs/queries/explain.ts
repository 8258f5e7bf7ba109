import { nodesNow } from '../../cluster/index.js'
import { statement } from '../../database/index.js'
import { suspectCrashes } from '../job.js'

export interface StandingRow {
  readonly lane: number
  readonly queue: string
  readonly name: string
  readonly version: number
  readonly capability: string
  readonly state: number
  readonly attempt: number
  readonly attempts_max: number
  readonly crashes: number
  readonly run_at: Date
  readonly created_at: Date
  /** Milliseconds until run_at, by the database clock; below 0: it is past. */
  readonly due_ms: number
  readonly claimed_at: Date | null
  readonly running_ms: number | null
  readonly cancel_at: Date | null
  readonly cancel_reason: string | null
  readonly finished_at: Date | null
  readonly reason: string | null
  readonly gate: string | null
  readonly error: unknown
  readonly node: string | null
  readonly host: string | null
  readonly pid: number | null
  readonly node_state: string | null
  readonly paused_at: Date | null
  readonly paused_by: string | null
  readonly paused_reason: string | null
}

/** Where a job stands, with its queue and its node. $1 id. */
export const standingOfJob = statement<StandingRow>(
  'forge_standing_of_job',
  (s) => `
  select j.lane, l.queue, l.name, l.version, l.capability, j.state, j.attempt, j.attempts_max, j.crashes, j.run_at, j.created_at,
         (extract(epoch from j.run_at - clock_timestamp()) * 1000)::float8 as due_ms, j.claimed_at,
         (extract(epoch from clock_timestamp() - j.claimed_at) * 1000)::float8 as running_ms,
         j.cancel_at, j.cancel_reason, j.finished_at, j.reason, j.gate, j.error,
         j.node, n.host, n.pid, n.state as node_state, q.paused_at, q.paused_by, q.paused_reason
  from (
    select lane, state, attempt, attempts_max, crashes, run_at, created_at, claimed_at, cancel_at, cancel_reason,
           null::timestamptz as finished_at, null::text as reason, gate, errors -> -1 as error, node
    from ${s}.job where id = $1::uuid
    union all
    select lane, state, attempt, attempts_max, crashes, run_at, created_at, claimed_at, null, null, finished_at, reason,
           null, errors -> -1, node
    from ${s}.job_history where id = $1::uuid and not exists (select 1 from ${s}.job where id = $1::uuid)
  ) as j
  join ${s}.job_lane l on l.id = j.lane
  left join ${nodesNow(s)} as n on n.id = j.node
  left join ${s}.job_queue q on q.queue = l.queue
  limit 1`,
)

export interface ServiceRow {
  /** Nodes that live, work and do not drain. */
  readonly workers: number
  /** Of them, those that have said which lanes they serve. */
  readonly known: number
  /** Of them, those that serve the lane. */
  readonly serving: number
  /** Of those, the ones that run a suspect now. */
  readonly busy: number
  /** Workers that declare the lane's capability. */
  readonly capable: number
  /** Other queues and versions of the name that somebody serves. */
  readonly other_queues: string[] | null
  readonly other_versions: number[] | null
}

/** Who serves a lane ($1), by what the nodes themselves have said. */
export const serviceOfLane = statement<ServiceRow>(
  'forge_service_of_lane',
  (s) => `
  with worker as (
    select n.id, n.capabilities, w.lanes from ${nodesNow(s)} as n left join ${s}.job_worker w on w.node = n.id
    where n.state = 'active' and 'worker' = any(n.roles)
  ), lane as (
    select * from ${s}.job_lane where id = $1::int
  ), served as (
    select distinct o.queue, o.version from lane
    join ${s}.job_lane o on o.name = lane.name and o.id <> lane.id
    where o.id in (select unnest(lanes) from worker)
  )
  select count(*)::int as workers,
         count(worker.lanes)::int as known,
         (count(*) filter (where $1 = any(worker.lanes)))::int as serving,
         (count(*) filter (where $1 = any(worker.lanes) and exists (
            select 1 from ${s}.job
            where job.stage = 2 and job.crashes >= ${suspectCrashes} and job.state = 3 and job.node = worker.id)))::int as busy,
         (count(*) filter (where (select capability from lane) = any(worker.capabilities)))::int as capable,
         (select array_agg(queue order by queue) from served where queue <> (select queue from lane)) as other_queues,
         (select array_agg(version order by version) from served
           where queue = (select queue from lane) and version <> (select version from lane)) as other_versions
  from worker`,
)

/**
 * What is more urgent than this job ($1) in its queue, counted up to $2 + 1, and how many jobs of the queue run. Where
 * nodes say which lanes they serve, only what is served counts: the rest is in nobody's way. Suspects are claimed by
 * themselves, so they stand in the way of suspects only.
 */
export const aheadOfJob = statement<{ ahead: number; running: number }>(
  'forge_ahead_of_job',
  (s) => `
  with mine as (
    select j.due, j.id, j.crashes >= ${suspectCrashes} as suspect, l.queue from ${s}.job j join ${s}.job_lane l on l.id = j.lane where j.id = $1::uuid
  ), lanes as (
    select l.id from ${s}.job_lane l join mine using (queue)
    where not exists (select 1 from ${s}.job_worker) or exists (select 1 from ${s}.job_worker w where l.id = any(w.lanes))
  )
  select (select count(*)::int from (
            select 1 from mine cross join lanes cross join lateral (
              select 1 from ${s}.job
              where job.lane = lanes.id and job.stage = 2 and job.state = 2 and (job.due, job.id) < (mine.due, mine.id)
                and (job.crashes >= ${suspectCrashes}) = mine.suspect
              order by job.due, job.id limit $2::int + 1) as head
            limit $2::int + 1) as capped) as ahead,
         (select count(*)::int from (
            select 1 from ${s}.job_running as job join lanes on lanes.id = job.lane limit $2::int + 1) as busy) as running`,
)

export interface GateRow {
  /** Jobs at the same gate that come before it. */
  readonly ahead: number
  /** Null: the limit is not known, or there is none any more. */
  readonly limit_n: number | null
  /** Rates only: so many per this time, in ms. */
  readonly per_ms: number | null
  /** A full rate: milliseconds until it lets one through. */
  readonly wait_ms: number | null
}

/** The gate at which a job ($1) waits: how many come before it, counted up to $2 + 1, and the numbers of the limit. */
export const gateOfJob = statement<GateRow>(
  'forge_gate_of_job',
  (s) => `
  select (select count(*)::int from (
            select 1 from ${s}.job o where o.stage = 1 and o.state = 1 and o.gate = j.gate and (o.due, o.id) < (j.due, j.id)
            limit $2::int + 1) as capped) as ahead,
         rule.limit_n, rule.per_ms, (select wait_ms from ${s}.job_gate(j.gate)) as wait_ms
  from ${s}.job j left join ${s}.job_limit as rule on rule.gate_class = split_part(j.gate, '=', 1)
  where j.id = $1::uuid and j.state = 1`,
)
