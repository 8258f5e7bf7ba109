import { knownNode } from '../../cluster/index.js'
import { statement } from '../../database/index.js'

export interface QueuesSeen {
  readonly queues: readonly { queue: string; paused: boolean; scale: number | null; limit: number | null }[]
  /** Somebody waits at a gate. */
  readonly blocked: boolean
}

/** Two columns: what is said of queues, as far as a node (an SQL expression) is concerned, and whether anybody waits at a gate. */
export const queuesSeen = (s: string, node: string): string => `
  (with named as (
    select queue from ${s}.job_queue where paused_at is not null
    union select queue from ${s}.job_queue_scale
    union select substr(gate_class, 3) from ${s}.job_limit where left(gate_class, 2) = 'q/'
  ), said as (
    select n.queue, q.paused_at is not null as paused, coalesce(mine.limit_n, everywhere.limit_n) as scale,
           l.limit_n as "limit"
    from named n
    left join ${s}.job_queue q on q.queue = n.queue
    left join ${s}.job_queue_scale mine on mine.queue = n.queue and mine.node = ${node}
    left join ${s}.job_queue_scale everywhere on everywhere.queue = n.queue and everywhere.node is null
    left join ${s}.job_limit l on l.gate_class = 'q/' || n.queue
  )
  select coalesce((select jsonb_agg(said) from said), '[]')) as queues,
  exists (select from (select 1) as one cross join lateral (
            select 1 from ${s}.job where stage = 1 order by gate limit 1) as waits) as blocked`

/** Nodes that run no jobs; a worker's look brings it along. $1 node. */
export const lookAtQueues = statement<QueuesSeen>(
  'forge_look_at_queues',
  (s) => `select ${queuesSeen(s, '$1::uuid')}`,
)

export interface QueueRow {
  readonly queue: string
  readonly paused_at: Date | null
  readonly paused_by: string | null
  readonly paused_reason: string | null
  readonly limit: number | null
  readonly available: number
  readonly waiting: number
  readonly blocked: number
  readonly running: number
}

/** Every queue that has a lane or of which something is said. $1 bounds each count, $2 names of this process. */
export const listQueues = statement<QueueRow>(
  'forge_list_queues',
  (s) => `
  with named as (
    select queue from ${s}.job_lane
    union select queue from ${s}.job_queue where paused_at is not null
    union select queue from ${s}.job_queue_scale
    union select substr(gate_class, 3) from ${s}.job_limit where left(gate_class, 2) = 'q/'
    union select unnest($2::text[])
  ), counted as (
    select lane, count(*) filter (where state = 3) as running, count(*) filter (where state in (0, 4)) as waiting,
           count(*) filter (where state = 1) as blocked
    from (select lane, state from ${s}.job_running
          union all (select lane, state from ${s}.job where stage = 0 limit $1)
          union all (select lane, state from ${s}.job where stage = 1 limit $1)) as capped group by lane
  ), summed as (
    select l.queue, sum(c.running) as running, sum(c.waiting) as waiting, sum(c.blocked) as blocked,
           sum((select count(*) from (select 1 from ${s}.job j where j.lane = l.id and j.stage = 2 and j.state = 2 limit $1) as a)) as available
    from ${s}.job_lane l left join counted c on c.lane = l.id group by l.queue
  )
  select n.queue, q.paused_at, q.paused_by, q.paused_reason, l.limit_n as "limit",
         coalesce(u.available, 0)::bigint as available, coalesce(u.waiting, 0)::bigint as waiting,
         coalesce(u.blocked, 0)::bigint as blocked, coalesce(u.running, 0)::bigint as running
  from named n
  left join ${s}.job_queue q on q.queue = n.queue
  left join ${s}.job_limit l on l.gate_class = 'q/' || n.queue
  left join summed u on u.queue = n.queue
  order by n.queue limit 1000`,
)

/** From the commit of this on, no claim takes a job of the queue. A second pause keeps the moment of the first. */
export const pauseQueue = statement(
  'forge_pause_queue',
  (s) => `
  insert into ${s}.job_queue as q (queue, paused_at, paused_by, paused_reason)
  values ($1, clock_timestamp(), $2, $3)
  on conflict (queue) do update
     set paused_at = coalesce(q.paused_at, excluded.paused_at), paused_by = excluded.paused_by,
         paused_reason = excluded.paused_reason`,
)

export const resumeQueue = statement(
  'forge_resume_queue',
  (s) => `
  update ${s}.job_queue set paused_at = null, paused_by = null, paused_reason = null
  where queue = $1 and paused_at is not null`,
)

/** For every process: what was said for single ones before no longer counts. */
export const scaleQueue = statement(
  'forge_scale_queue',
  (s) => `
  with gone as (delete from ${s}.job_queue_scale where queue = $1 and node is not null)
  insert into ${s}.job_queue_scale (queue, node, limit_n) values ($1, null, $2)
  on conflict (queue, node) do update set limit_n = excluded.limit_n`,
)

/** For the process of node $2; no row back when nobody knows it. Sweeps away what was said for nodes that are gone. */
export const scaleQueueOnNode = statement<{ queue: string }>(
  'forge_scale_queue_on_node',
  (s) => `
  with gone as (
    delete from ${s}.job_queue_scale as old where node is not null and not ${knownNode(s, 'old.node')}
  )
  insert into ${s}.job_queue_scale (queue, node, limit_n)
  select $1, $2::uuid, $3::int where ${knownNode(s, '$2::uuid')}
  on conflict (queue, node) do update set limit_n = excluded.limit_n
  returning queue`,
)

/** Back to the options: everywhere ($2 null), or for one node, which follows what is said for all again. */
export const unscaleQueue = statement(
  'forge_unscale_queue',
  (s) => `delete from ${s}.job_queue_scale where queue = $1 and ($2::uuid is null or node = $2::uuid)`,
)
