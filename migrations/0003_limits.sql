-- Limits: how many jobs run at once, and how many start per time, exact in the whole cluster.
-- requires-code: 3

-- A gate is what a limited job passes before it becomes available. Its name says its class and, after the first '=',
-- its key: 'c/<job>' or 'c/<job>=<key>' (running at once), 'r/<job>' or 'r/<job>=<key>' (per time), 'q/<queue>'
-- (running at once in the queue). Names of jobs and queues may hold slashes and never '='; keys may hold both.

-- The limits by class. A gate whose class has no row lets everybody through.
create table job_limit (
  gate_class text primary key check (left(gate_class, 2) in ('c/', 'r/', 'q/') and octet_length(gate_class) between 3 and 202),
  limit_n    int not null check (limit_n >= 1),
  -- Rates only: so many per this time.
  per_ms     bigint check (per_ms >= 1),
  -- Each key has a gate of its own.
  keyed      boolean not null default false,
  check ((left(gate_class, 2) = 'r/') = (per_ms is not null))
);

-- What passed a rate gate and when, one row per admission. `total` counts on, so that the number within any window is
-- the difference of two rows, however many passed.
create table job_rate (
  gate  text not null,
  at    timestamptz not null,
  total bigint not null,
  taken int not null check (taken >= 1),
  primary key (gate, at, total)
);
create index job_rate_at on job_rate (at);
alter table job_rate set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- Who holds a place is read off the jobs themselves, so nothing can leak: whoever passed the gate and is not finished or
-- put off. These are the indexes for it; rows without gates are in neither.
create index job_holds on job ((gates[1]))
  where gates is not null and stage in (1, 2) and gate is distinct from gates[1] and left(gates[1], 2) = 'c/';
create index job_holds_queue on job ((gates[cardinality(gates)]))
  where gates is not null and stage = 2 and left(gates[cardinality(gates)], 2) = 'q/';

-- How many jobs of a queue run at once in each process (node null) or in one, over the option of the process.
create table job_queue_scale (
  queue   text not null check (octet_length(queue) between 1 and 200),
  node    uuid,
  limit_n int not null check (limit_n >= 1),
  unique nulls not distinct (queue, node)
);

-- How many more jobs this gate lets through now, and for a full rate gate the milliseconds until it lets one through.
create function job_gate(g text, out free int, out wait_ms float8)
language plpgsql stable set search_path from current set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  rule job_limit;
  t timestamptz := clock_timestamp();
  used bigint;
  since timestamptz;
begin
  select * into rule from job_limit where gate_class = split_part(g, '=', 1);
  if not found then
    free := 10000;
    return;
  end if;
  if left(g, 2) = 'c/' then
    select count(*) into used from (
      select from job where gates[1] = g and gates is not null and stage in (1, 2)
        and gate is distinct from gates[1] and left(gates[1], 2) = 'c/' limit rule.limit_n) as held;
  elsif left(g, 2) = 'q/' then
    select count(*) into used from (
      select from job where gates[cardinality(gates)] = g and gates is not null and stage = 2
        and left(gates[cardinality(gates)], 2) = 'q/' limit rule.limit_n) as held;
  else
    select newest.total - oldest.total + oldest.taken, oldest.at into used, since
    from (select total, taken, at from job_rate
          where job_rate.gate = g and at > t - rule.per_ms * interval '1 ms' order by at, total limit 1) as oldest,
         (select total from job_rate where job_rate.gate = g order by at desc, total desc limit 1) as newest;
    if used >= rule.limit_n then
      wait_ms := greatest(1, extract(epoch from since - t) * 1000 + rule.per_ms);
    end if;
  end if;
  free := greatest(0, rule.limit_n - coalesce(used, 0));
end $$;

-- Lets the oldest waiting jobs through these gates, as many as there is room for, and through the gates that follow.
--
-- Kinds go in the order c, r, q and gates of a kind by name, so that no two admissions wait for each other. The lock of a
-- gate comes in one statement and the count in a later one, whose snapshot shows what the one before has done; so the
-- function must be volatile and the transaction READ COMMITTED. A job keeps its place in the order of a gate: `due` counts
-- from its arrival there, so that many jobs of one key do not stand before others because they are older. Behind the last
-- gate its own `due` counts again.
--
-- Answers: 'ready' a lane and the smallest due (epoch seconds) of what became available in it; 'later' a gate and the
-- milliseconds until it lets one through; 'more' a gate that was not finished within the bounds of one call.
create function job_admit(wanted text[]) returns table (what text, name text, value float8)
language plpgsql volatile
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  gates_max constant int := 64;
  rows_max constant int := 1000;
  kind text;
  todo text[];
  spare text[];
  moved int;
  step record;
  lanes int[] := '{}';
  dues timestamptz[] := '{}';
begin
  foreach kind in array array['c/', 'r/', 'q/'] loop
    select coalesce(array_agg(g order by g) filter (where n <= gates_max), '{}'),
           coalesce(array_agg(g) filter (where n > gates_max), '{}')
      into todo, spare
    from (
      select g, row_number() over (order by g collate "C") as n from (
        select distinct w.g from unnest(wanted) as w(g) where left(w.g, 2) = kind) as each
      where exists (select from job where stage = 1 and gate = g order by gate, due limit 1)) as numbered;
    return query select 'more', g, null::float8 from unnest(spare) as s(g);
    continue when todo = '{}';

    perform pg_advisory_xact_lock(hashtextextended('forge:gate:' || current_schema() || ':' || g, 0))
    from (select g from unnest(todo) as t(g) order by g collate "C" offset 0) as ordered;

    moved := 0;
    for step in
      with open as materialized (
        select t.g, least(f.free, rows_max) as free from unnest(todo) as t(g) cross join lateral job_gate(t.g) as f
        where f.free > 0
      ), picked as materialized (
        select open.g, head.*
        from open cross join lateral (
          select id, due, gates from job where stage = 1 and gate = open.g
          order by gate, due, id limit open.free for update skip locked) as head
        limit rows_max
      ), counted as (
        insert into job_rate (gate, at, total, taken)
        select p.g, greatest(clock_timestamp(), last.at), coalesce(last.total, 0) + p.n, p.n
        from (select g, count(*)::int as n from picked group by g) as p
        left join lateral (select at, total from job_rate r where r.gate = p.g order by at desc, total desc limit 1) as last on true
        where kind = 'r/' and exists (select from job_limit where gate_class = split_part(p.g, '=', 1))
      ), passed as (
        update job set
          state = case when f.following is null then 2 else 1 end,
          stage = case when f.following is null then 2 else 1 end,
          gate = f.following,
          due = case when f.following is null then run_at else greatest(run_at, clock_timestamp()) + f.place * interval '1 us' end
                + (100 - priority) * interval '6 s'
        from (
          select id, row_number() over (order by due, id) as place, gates[array_position(gates, g) + 1] as following
          from picked
        ) as f
        where job.id = f.id
        returning job.lane, job.gate, job.due
      )
      select lane, gate, min(due) as due, count(*)::int as n from passed group by lane, gate
    loop
      moved := moved + step.n;
      if step.gate is null then
        lanes := lanes || step.lane;
        dues := dues || step.due;
      else
        wanted := wanted || step.gate;
      end if;
    end loop;

    -- Whoever waits at a rate gate wants to know until when; a call at its bounds has left something behind.
    if kind = 'r/' or moved >= rows_max then
      return query
      select case when f.free > 0 then 'more' else 'later' end, t.g, f.wait_ms
      from unnest(todo) as t(g) cross join lateral job_gate(t.g) as f
      where exists (select from job where stage = 1 and gate = t.g order by gate, due limit 1)
        and (f.free > 0 or f.wait_ms is not null);
    end if;
    if kind = 'r/' then
      delete from job_rate where ctid = any (array(
        select old.ctid from unnest(todo) as t(g)
        join job_limit on gate_class = split_part(t.g, '=', 1)
        cross join lateral (
          select ctid from job_rate r where r.gate = t.g and r.at <= clock_timestamp() - per_ms * interval '1 ms'
          order by r.at limit 20) as old));
    end if;
  end loop;

  return query
  select 'ready', r.lane::text, extract(epoch from min(r.due))::float8
  from unnest(lanes, dues) as r(lane, due) group by r.lane;
end $$;

-- The gates of a job, in the order in which it passes them; null when nothing limits it. For those who enqueue by SQL.
-- A keyed limit needs its key: without one this raises 22004.
create function job_gates(job_name text, queue text, concurrency_key text default null, rate_key text default null)
returns text[] language plpgsql stable set search_path from current as $$
declare
  rule job_limit;
  found_gates text[] := '{}';
  key text;
begin
  for rule in
    select * from job_limit where gate_class in ('c/' || job_name, 'r/' || job_name, 'q/' || queue)
    order by position(left(gate_class, 1) in 'crq')
  loop
    key := case left(rule.gate_class, 1) when 'c' then concurrency_key when 'r' then rate_key end;
    if rule.keyed and key is null then
      raise exception 'the limit of job % is by key, and no key was given', job_name using errcode = '22004';
    end if;
    found_gates := found_gates || (rule.gate_class || case when rule.keyed then '=' || key else '' end);
  end loop;
  return nullif(found_gates, '{}');
end $$;
