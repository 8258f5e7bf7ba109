import { statement } from '../../database/index.js'

/**
 * The columns of a job whose time has come: available, or in front of its first gate. Whoever makes a job available
 * that was put off, is new, or comes back from history, sets them so; a job that keeps its place (handed back,
 * rescued) becomes available without passing its gates again.
 */
export const comesUp = `
  state = case when gates is null then 2 else 1 end, stage = case when gates is null then 2 else 1 end, gate = gates[1]`

/**
 * Waiting jobs whose time has come: available, or in front of their first gate. By lane: the smallest due of what became
 * available (epoch seconds; null: nothing did), and the gates to ask for.
 */
export const promoteDue = statement<{ lane: number; due: number | null; gates: string[] | null }>(
  'forge_promote_due',
  (s) => `
  with ready as (
    select ctid from ${s}.job where stage = 0 and run_at <= clock_timestamp()
    order by run_at limit 1000 for update skip locked
  ), moved as (
    update ${s}.job set ${comesUp} where ctid = any (array(select ctid from ready)) returning lane, gate, due
  )
  select lane, date_part('epoch', min(due) filter (where gate is null)) as due,
         array_agg(distinct gate) filter (where gate is not null) as gates
  from moved group by lane`,
)

/** 'ready' a lane and the smallest due in it, 'later' a gate and milliseconds, 'more' a gate to ask for again. */
export interface Admitted {
  readonly what: 'ready' | 'later' | 'more'
  readonly name: string
  readonly value: number | null
}

/**
 * Lets through these gates whom there is room for. What it moved is made durable by the first commit after it that
 * matters (the claim's), since the log is written in order; lost with a crash, the jobs wait at their gates again. So
 * it does not wait for the disk itself.
 */
export const admitJobs = statement<Admitted>(
  'forge_admit_jobs',
  (s) => `
  select a.what, a.name, a.value
  from (select set_config('synchronous_commit', 'off', true) as mode) as quick
  cross join lateral ${s}.job_admit(case when quick.mode is null then null else $1::text[] end) as a`,
)

/**
 * The next $2 gates after $1 at which somebody waits, with their room and, for full rate gates, the milliseconds to
 * wait: a loose walk over the index, one step per gate, however many wait at each. Counts nothing that waits.
 */
export const nextGates = statement<{ gate: string; free: number; wait_ms: number | null }>(
  'forge_next_gates',
  (s) => `
  with recursive walk (gate, n) as (
    (select gate, 1 from ${s}.job where stage = 1 and gate > $1 order by gate limit 1)
    union all
    select (select job.gate from ${s}.job where job.stage = 1 and job.gate > walk.gate order by job.gate limit 1), n + 1
    from walk where walk.gate is not null and n < $2::int
  )
  select walk.gate, room.free, room.wait_ms from walk cross join lateral ${s}.job_gate(walk.gate) as room
  where walk.gate is not null order by walk.gate`,
)

/**
 * Writes the limits of definitions and queues where they differ, and takes away those of classes without one. Arrays:
 * class, limit, per in ms, keyed; $5 classes without a limit. Answers with the classes that changed.
 */
export const writeLimits = statement<{ gate_class: string }>(
  'forge_write_limits',
  (s) => `
  with gone as (
    delete from ${s}.job_limit where gate_class = any($5::text[]) returning gate_class
  ), written as (
    insert into ${s}.job_limit as old (gate_class, limit_n, per_ms, keyed)
    select * from unnest($1::text[], $2::int[], $3::bigint[], $4::boolean[]) as n(gate_class, limit_n, per_ms, keyed)
    -- What is right already is not even locked: every node of a cluster writes the same at its start.
    where not exists (select from ${s}.job_limit as same where same.gate_class = n.gate_class and same.limit_n = n.limit_n
                      and same.per_ms is not distinct from n.per_ms and same.keyed = n.keyed)
    order by 1
    on conflict (gate_class) do update
       set limit_n = excluded.limit_n, per_ms = excluded.per_ms, keyed = excluded.keyed
     where (old.limit_n, old.per_ms, old.keyed) is distinct from (excluded.limit_n, excluded.per_ms, excluded.keyed)
    returning gate_class
  )
  select gate_class from gone union all select gate_class from written`,
)

/** What passed rate gates so long ago that no window of any rate reaches back to it; of gates in use admission does it. */
export const forgetRates = statement(
  'forge_forget_rates',
  (s) => `
  delete from ${s}.job_rate where ctid = any (array(
    select ctid from ${s}.job_rate
    where at < clock_timestamp() - (select coalesce(max(per_ms), 0) from ${s}.job_limit) * interval '1 ms'
    order by at limit 5000 for update skip locked))`,
)
