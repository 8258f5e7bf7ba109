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

/** What one statement made in one lane: jobs that are due, or jobs that wait for their time. */
export interface MadeRow {
  readonly lane: number
  readonly waits: boolean
  /** The smallest due, in whole seconds since 1970. */
  readonly due_s: number | string
  /** So that a commit that forge does not make can be watched. */
  readonly xid: string
}

const seconds = (due: string): string => `floor(extract(epoch from ${due}))::bigint`
const dueAt = (at: string, priority: string): string => `${at} + (100 - ${priority}) * interval '6 s'`

/** The leanest of the inserts: one job that can run now, under an id that nobody has used. */
export const insertJob = statement<{ due_ms: number }>(
  'forge_insert_job',
  (s) => `
  insert into ${s}.job (id, lane, state, stage, priority, attempts_max, run_at, due, input)
  values ($1, $2, 2, 2, $3, $4, statement_timestamp(), ${dueAt('statement_timestamp()', '$3::smallint')}, $5)
  returning floor(extract(epoch from due) * 1000)::bigint as due_ms`,
)

/** $1 ids, $2 lanes, $3 priorities, $4 attempts, $5 delays in ms, $6 run_at (null: see the delay), $7 inputs, … */
const rowsOf = (more: string, names: string): string => `
  select u.*, coalesce(u.at, statement_timestamp() + coalesce(u.delay_ms, 0) * interval '1 ms') as run_at
  from unnest($1::uuid[], $2::int[], $3::smallint[], $4::smallint[], $5::float8[], $6::timestamptz[], $7::jsonb[]${more})
       as u(id, lane, priority, attempts_max, delay_ms, at, input${names})`

/** Jobs without gates, tags and parent, under ids that nobody has used. Answers by lane: the rest is known. */
export const insertMany = statement<MadeRow>(
  'forge_insert_many',
  (s) => `
  with made as (
    insert into ${s}.job (id, lane, state, stage, priority, attempts_max, run_at, due, input)
    select id, lane, stage, stage, priority, attempts_max, run_at, ${dueAt('run_at', 'priority')}, input
    from (select *, case when run_at > statement_timestamp() then 0 else 2 end as stage from (${rowsOf('', '')}) as r) as j
    returning lane, state, due
  )
  select lane, state = 0 as waits, ${seconds('min(due)')} as due_s, pg_current_xact_id()::text as xid
  from made group by lane, state`,
)

/**
 * When the jobs of a bulk call are due: $1 priority, $2 delay in ms, $3 run_at (null: see the delay). Times as text, for
 * `copyJobs`.
 */
export const bulkTimes = statement<{ run_at: string; due: string; due_s: number; waits: boolean }>(
  'forge_bulk_times',
  () => `
  select run_at::text, due::text, ${seconds('due')} as due_s, run_at > statement_timestamp() as waits
  from (select run_at, ${dueAt('run_at', '$1::smallint')} as due
        from (select coalesce($3::timestamptz, statement_timestamp() + coalesce($2::float8, 0) * interval '1 ms') as run_at)
             as r) as t`,
)

/** What `insertMany` inserts, for about two thirds of its cost to the server. */
export const copyJobs = statement(
  'forge_copy_jobs',
  (s) => `copy ${s}.job (id, lane, state, stage, priority, attempts_max, run_at, due, input) from stdin`,
)

/**
 * The fuller insert: also $8 gates, $9 tags (texts of arrays), $10 parents, and ids that may have been used. A job
 * with gates is blocked at the first of them once its time has come. Answers with those that are new.
 */
export const insertFull = statement<MadeRow & { id: string }>(
  'forge_insert_full',
  (s) => `
  insert into ${s}.job (id, lane, state, stage, priority, attempts_max, run_at, due, gates, gate, tags, parent, input)
  select id, lane, state, state, priority, attempts_max, run_at, ${dueAt('run_at', 'priority')}, gates,
         case when state = 1 then gates[1] end, tags, parent, input
  from (
    select r.id, r.lane, r.priority, r.attempts_max, r.run_at, r.gates::text[], r.tags::text[], r.parent, r.input,
           case when r.run_at > statement_timestamp() then 0 when r.gates is null then 2 else 1 end as state
    from (${rowsOf(', $8::text[], $9::text[], $10::uuid[]', ', gates, tags, parent')}) as r
  ) as j
  -- Those who insert the same ids at the same time must not wait for each other.
  order by id
  on conflict (id) do nothing
  returning id, lane, state = 0 as waits, ${seconds('due')} as due_s, pg_current_xact_id()::text as xid`,
)

/**
 * Jobs of which some are unique; see the function. $2 whether the id may have been used; then as `insertFull`; then
 * scopes, keys, modes, windows and longest waits in ms. One answer per job, in order.
 */
export const insertUnique = statement<{
  job: string
  reason: 'exists' | 'duplicate' | 'replaced' | 'debounced' | 'running' | null
  waits: boolean | null
  due_s: number | string | null
  xid: string
}>(
  'forge_insert_unique',
  (s) => `
  select job, reason, waits, due_s, xid
  from ${s}.job_enqueue($1::uuid[], $2::boolean[], $3::int[], $4::smallint[], $5::smallint[], $6::float8[],
         $7::timestamptz[], $8::jsonb[], $9::text[], $10::text[], $11::uuid[], $12::text[], $13::text[], $14::text[],
         $15::float8[], $16::float8[])
  order by n`,
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

/** A definition as it stands in the catalogue. */
export interface DefinitionRow {
  readonly name: string
  readonly version: number
  readonly queue: string
  readonly priority: number
  readonly attempts: number
  readonly capability: string
  readonly unique_mode: string | null
  readonly unique_keyed: boolean
  readonly unique_for_ms: number | null
  readonly unique_max_wait_ms: number | null
  readonly concurrency_limit: number | null
  readonly concurrency_keyed: boolean
  readonly rate_limit: number | null
  readonly rate_per_ms: number | null
  readonly rate_keyed: boolean
}

const definitionColumns: readonly (keyof DefinitionRow)[] = [
  ...(['name', 'version', 'queue', 'priority', 'attempts', 'capability'] as const),
  ...(['unique_mode', 'unique_keyed', 'unique_for_ms', 'unique_max_wait_ms'] as const),
  ...(['concurrency_limit', 'concurrency_keyed', 'rate_limit', 'rate_per_ms', 'rate_keyed'] as const),
]

/**
 * Writes what definitions say ($1, a list of rows) where the catalogue says something else. A definition of an older
 * version leaves it alone; nodes that agree write nothing.
 */
export const saveDefinitions = statement<{ name: string }>(
  'forge_save_definitions',
  (s) => `
  insert into ${s}.job_definition as d (${definitionColumns.join(', ')})
  select ${definitionColumns.join(', ')} from jsonb_populate_recordset(null::${s}.job_definition, $1::jsonb) as p
  where not exists (
    select from ${s}.job_definition as o
    where o.name = p.name
      and (o.version > p.version or to_jsonb(o) - 'updated_at' = to_jsonb(p) - 'updated_at'))
  order by name
  on conflict (name) do update
  set (${definitionColumns.join(', ')}, updated_at) = (${definitionColumns.map((name) => `excluded.${name}`).join(', ')}, now())
  where d.version <= excluded.version
  returning d.name`,
)

/** Where these jobs ($1) stand, for those who wake workers: a gate they wait at, or what hints say. */
export const madeJobs = statement<{ lane: number; waits: boolean; dueSeconds: number; gate: string | null }>(
  'forge_made_jobs',
  (s) => `
  select lane, stage <> 2 as waits, floor(extract(epoch from due))::float8 as "dueSeconds", gate
  from ${s}.job where id = any ($1::uuid[])`,
)
