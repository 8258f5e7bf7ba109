import { statement } from '../../database/index.js'

export interface LaneKey {
  readonly queue: string
  readonly name: string
  readonly version: number
  readonly capability: string
}

/** Lanes that exist already; read first, because an insert that conflicts burns a number of the sequence. */
export const findLanes = statement<{ id: number } & LaneKey>(
  'forge_find_lanes',
  (s) => `
  select l.id, l.queue, l.name, l.version, l.capability
  from unnest($1::text[], $2::text[], $3::int[], $4::text[]) as w(queue, name, version, capability)
  join ${s}.job_lane l using (queue, name, version, capability)`,
)

/** Every lane of these names, whatever queue an enqueue chose for it. */
export const lanesOfNames = statement<{ id: number } & LaneKey>(
  'forge_lanes_of_names',
  (s) => `select id, queue, name, version, capability from ${s}.job_lane where name = any($1::text[])`,
)

export const makeLanes = statement(
  'forge_make_lanes',
  (s) => `
  insert into ${s}.job_lane (queue, name, version, capability)
  select * from unnest($1::text[], $2::text[], $3::int[], $4::text[]) as w(queue, name, version, capability)
  order by 1, 2, 3, 4
  on conflict do nothing`,
)

/**
 * Inserts jobs from arrays: id, lane, priority, attempts_max, delay in ms (null: see run_at), run_at, input, gates (null:
 * no limits). A job whose time has come is available at once, or waits at its first gate; later ones wait as scheduled. Answers with the ids that are new,
 * whether they wait, and the transaction, so that a commit that forge does not make can be watched.
 */
export const insertJobs = statement<{ id: string; waits: boolean; xid: string }>(
  'forge_insert_jobs',
  (s) => `
  insert into ${s}.job (id, lane, state, priority, attempts_max, run_at, due, input, gates, gate)
  select id, lane, case when later then 0 when gates is null then 2 else 1 end, priority, attempts_max,
         run_at, run_at + (100 - priority) * interval '6 s', input, gates, case when not later then gates[1] end
  from (
    select u.*, u.run_at > clock_timestamp() as later from (
      select u.id, u.lane, u.priority, u.attempts_max,
             coalesce(u.run_at, clock_timestamp() + coalesce(u.delay_ms, 0) * interval '1 ms') as run_at, u.input,
             case when u.gates is not null then (select array_agg(g) from jsonb_array_elements_text(u.gates) as g) end as gates
      from unnest($1::uuid[], $2::int[], $3::smallint[], $4::smallint[], $5::float8[], $6::timestamptz[], $7::jsonb[],
                  $8::jsonb[])
        as u(id, lane, priority, attempts_max, delay_ms, run_at, input, gates)
      order by u.id
    ) as u
  ) as j
  on conflict (id) do nothing
  returning id, state = 0 as waits, pg_current_xact_id()::text as xid`,
)

/**
 * For repeats: which of these new rows are in history already. The second statement of the same READ COMMITTED
 * transaction: its snapshot is younger than the insert, so a job that finished in between is seen.
 */
export const removeFinishedTwins = statement<{ id: string }>(
  'forge_remove_finished_twins',
  (s) => `
  delete from ${s}.job using ${s}.job_history h
  where job.id = any($1::uuid[]) and h.id = job.id and job.claims = 0
  returning job.id`,
)

/** What became of transactions that forge did not commit itself. */
export const transactionsDone = statement<{ xid: string; status: string | null }>(
  'forge_transactions_done',
  () => `
  select x as xid, pg_xact_status(x::xid8) as status from unnest($1::text[]) as x`,
)
