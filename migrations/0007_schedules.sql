-- Schedules: what fires when, the ticks that were, and which running code defines what.
-- requires-code: 4

create table schedule (
  name       text primary key check (octet_length(name) between 1 and 100),
  -- code: as running code defines it; runtime: made by node.crons.create.
  origin     text not null check (origin in ('code', 'runtime')),
  -- Rule, zone, bounds and policies, and the job that a tick makes: see src/schedules/spec.ts.
  spec       jsonb not null,
  hash       text not null,
  -- Rises with each change by people or code: a tick that was worked out before it does not fire.
  rev        bigint not null default 1,
  -- The planned time of the next tick; while `planned` is false the moment from which on it is to be looked for.
  next_at    timestamptz,
  planned    boolean not null default false,
  last_at    timestamptz,
  last_job   uuid,
  -- Ticks that wait for the job of the one before (overlap: queue).
  waiting    int not null default 0 check (waiting >= 0),
  paused_at  timestamptz,
  paused_by  text,
  paused_reason text,
  -- Since when no running code defines it, and since when it therefore fires no more.
  orphaned_at timestamptz,
  removed_at timestamptz,
  -- Its ticks could not be made: why, how often on end, and when the next try is.
  fault      text,
  failures   int not null default 0,
  held_until timestamptz,
  -- When to look at it; null: never.
  look_at    timestamptz generated always as (
    case when paused_at is null and removed_at is null and next_at is not null then greatest(next_at, held_until) end) stored,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);

-- What will fire, in the order of its time: looking costs what is due, not what exists.
create index schedule_look on schedule (look_at) where look_at is not null;
create index schedule_waiting on schedule (name) where waiting > 0;

alter table schedule set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

-- One row per tick: what makes a doubled one impossible, and the history for people.
create table schedule_tick (
  schedule   text not null,
  planned_at timestamptz not null,
  -- When it was settled: fired, or found to be of no use.
  fired_at   timestamptz not null default clock_timestamp(),
  -- waiting: for the job of the tick before; skipped: that job was unfinished; missed: nobody was there in time.
  outcome    text not null check (outcome in ('fired', 'waiting', 'skipped', 'missed')),
  job        uuid,
  -- Of those that people asked for.
  by         text,
  reason     text,
  primary key (schedule, planned_at)
);
create index schedule_tick_planned on schedule_tick (planned_at);
create index schedule_tick_waiting on schedule_tick (schedule, planned_at) where outcome = 'waiting';

-- Who changed a schedule, when, and why.
create table schedule_event (
  id       bigint generated always as identity primary key,
  schedule text not null,
  at       timestamptz not null default clock_timestamp(),
  event    text not null,
  by       text,
  reason   text
);
create index schedule_event_of on schedule_event (schedule, id);

-- Every definition that code has had, and when it was first seen: the youngest that a living node has counts, so that
-- two versions of an app side by side do not change it to and fro.
create table schedule_version (
  name          text not null,
  hash          text not null,
  spec          jsonb not null,
  first_seen_at timestamptz not null default clock_timestamp(),
  primary key (name, hash)
);

-- What the code of each node defines.
create table schedule_offer (
  node   uuid primary key,
  names  text[] not null,
  hashes text[] not null,
  check (cardinality(names) = cardinality(hashes))
);

-- Brings the schedules of code to what living nodes define, and says what changed. A schedule that nobody defines goes on
-- for the time of `grace`, since nodes restart; then it is removed, and comes back as it was when somebody defines it again.
create function schedule_reconcile(grace interval default '60 s')
returns table (name text, event text, detail text)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  w record;
  was text;
begin
  perform pg_advisory_xact_lock(hashtextextended('forge:schedules:' || current_schema(), 0));
  for w in
    with offered as (
      select distinct each.name, each.hash
      from schedule_offer as o join node on node.id = o.node and node.state <> 'dead'
      cross join lateral unnest(o.names, o.hashes) as each(name, hash)
    ), wanted as (
      select distinct on (offered.name) offered.name, v.hash, v.spec
      from offered join schedule_version as v on v.name = offered.name and v.hash = offered.hash
      order by offered.name, v.first_seen_at desc, v.hash
    )
    select coalesce(s.name, wanted.name) as name, wanted.hash, wanted.spec, s.origin, s.hash as old_hash,
           s.orphaned_at, s.removed_at,
           case when s.name is null then (
             select gone.name from schedule as gone
             where gone.origin = 'code' and gone.hash = wanted.hash
               and not exists (select from offered where offered.name = gone.name) limit 1) end as renamed
    from wanted full join schedule as s on s.name = wanted.name
    where s.name is null
       or (wanted.name is not null and s.origin = 'runtime')
       or (wanted.name is not null and (s.hash <> wanted.hash or s.orphaned_at is not null))
       or (wanted.name is null and s.origin = 'code' and s.removed_at is null)
    order by 1
  loop
    name := w.name;
    detail := null;
    if w.origin is null then
      event := case when w.renamed is null then 'created' else 'renamed' end;
      detail := w.renamed;
      insert into schedule (name, origin, spec, hash, next_at) values (w.name, 'code', w.spec, w.hash, clock_timestamp())
      on conflict do nothing;
      continue when not found;
    elsif w.origin = 'runtime' then
      -- What people made stands until people delete it.
      event := 'conflict';
      return next;
      continue;
    elsif w.hash is null then
      update schedule set orphaned_at = coalesce(orphaned_at, clock_timestamp()),
             removed_at = case when coalesce(orphaned_at, clock_timestamp()) <= clock_timestamp() - grace
                               then clock_timestamp() end
      where schedule.name = w.name returning case when removed_at is not null then 'removed' end into event;
      continue when event is null;
    else
      -- What was due under the old rule and has not fired is looked for under the new one.
      update schedule set spec = w.spec, hash = w.hash, orphaned_at = null, removed_at = null,
             rev = rev + 1, updated_at = clock_timestamp(), fault = null, failures = 0, held_until = null,
             planned = planned and hash = w.hash,
             next_at = case when hash = w.hash then next_at else least(next_at, clock_timestamp()) end
      where schedule.name = w.name and origin = 'code';
      event := case when w.hash <> w.old_hash then 'changed' when w.removed_at is not null then 'returned' end;
      continue when event is null;
    end if;
    insert into schedule_event (schedule, event, reason) values (w.name, event, 'renamed from ' || w.renamed);
    return next;
  end loop;
end $$;

-- What a tick makes: a job by the definition of its name, or the answer that there is nothing to make. The tick comes
-- first: if it was there before, nothing follows. What the columns say of the job is for those who wake workers.
create function schedule_tick_settle(
  s schedule, at timestamptz, run_at timestamptz, missed boolean, by text, reason text,
  out outcome text, out job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  busy boolean := s.spec->>'overlap' <> 'allow' and exists (select from job as j where j.id = s.last_job);
begin
  outcome := case when missed then 'missed'
                  when busy and s.spec->>'overlap' = 'skip' then 'skipped'
                  when (busy or s.waiting > 0) and s.spec->>'overlap' = 'queue'
                  then case when s.waiting >= 1000 then 'skipped' else 'waiting' end
                  else 'fired' end;
  insert into schedule_tick (schedule, planned_at, outcome, by, reason) values (s.name, at, outcome, by, reason)
  on conflict do nothing;
  if not found then
    outcome := null;
    return;
  end if;
  if outcome = 'fired' then job := schedule_tick_job(s, at, run_at); end if;
end $$;

-- The job of a tick that stands.
create function schedule_tick_job(s schedule, at timestamptz, run_at timestamptz) returns uuid
language plpgsql volatile set search_path from current as $$
declare
  made uuid;
begin
  select job_enqueue_named(
    s.spec->>'job',
    array[case when (s.spec->>'wrapped')::boolean
          then jsonb_build_object('scheduledFor', at, 'input', s.spec->'input',
                                  'late', round(extract(epoch from clock_timestamp() - at) * 1000))
          else s.spec->'input' end],
    s.spec->>'queue', run_at, (s.spec->>'priority')::int, s.spec->>'key', null,
    array['cron:' || s.name], null, false) into made;
  update schedule_tick set outcome = 'fired', job = made, fired_at = clock_timestamp()
  where schedule = s.name and planned_at = at;
  return made;
end $$;

-- Fires ticks, as a leader of role scheduler has worked them out: a list of {name, rev, next, ticks: [{at, run_at, missed}]}
-- in which all times are text. Nothing of a schedule that was changed meanwhile, and nothing that is not yet due by this
-- clock. Afterwards the schedule waits for `next` (null: for nothing).
create function schedule_fire(under_term uuid, plans jsonb)
returns table (name text, planned_at timestamptz, outcome text, job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  p record;
  t record;
  s schedule;
begin
  if not leads('scheduler', under_term) then
    raise exception 'forge: the term is over' using errcode = 'ZF010';
  end if;
  for p in select * from jsonb_to_recordset(plans) as x(name text, rev bigint, next timestamptz, ticks jsonb) order by name
  loop
    select * into s from schedule as standing
    where standing.name = p.name and standing.rev = p.rev and paused_at is null and removed_at is null
    for no key update;
    continue when not found;
    continue when exists (
      select from jsonb_to_recordset(p.ticks) as y(at timestamptz) where y.at > clock_timestamp());
    for t in
      select * from jsonb_to_recordset(p.ticks) as y(at timestamptz, run_at timestamptz, missed boolean) order by y.at
    loop
      select made.outcome, made.job into outcome, job
      from schedule_tick_settle(s, t.at, t.run_at, t.missed, null, null) as made;
      continue when outcome is null;
      s.last_at := t.at;
      s.last_job := coalesce(job, s.last_job);
      if outcome = 'waiting' then s.waiting := s.waiting + 1; end if;
      name := p.name;
      planned_at := t.at;
      if outcome <> 'missed' then return next; end if;
    end loop;
    update schedule as standing
       set next_at = p.next, planned = true, last_at = s.last_at, last_job = s.last_job, waiting = s.waiting,
           fault = null, failures = 0, held_until = null
     where standing.name = p.name;
  end loop;
end $$;

-- Fires ticks that waited for the job of the one before, where that has ended; the same answer.
create function schedule_release(under_term uuid)
returns table (name text, planned_at timestamptz, outcome text, job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  s schedule;
begin
  if not leads('scheduler', under_term) then
    raise exception 'forge: the term is over' using errcode = 'ZF010';
  end if;
  for s in
    select * from schedule as standing
    where waiting > 0 and paused_at is null and removed_at is null
      and not exists (select from job where job.id = standing.last_job)
    order by name limit 100 for no key update skip locked
  loop
    name := s.name;
    outcome := 'fired';
    select t.planned_at into planned_at from schedule_tick as t
    where t.schedule = s.name and t.outcome = 'waiting' order by t.planned_at limit 1;
    if found then
      job := schedule_tick_job(s, planned_at, null);
      return next;
    end if;
    update schedule as standing
       set waiting = case when planned_at is null then 0 else standing.waiting - 1 end,
           last_job = coalesce(job, standing.last_job)
     where standing.name = s.name;
    job := null;
  end loop;
end $$;

-- A tick that somebody asks for, now or as of a time that has passed. Unknown, removed and paused schedules give no row;
-- a tick that stood already is told as it stands.
create function schedule_trigger(wanted text, by text, reason text, as_of timestamptz)
returns table (outcome text, job uuid, planned_at timestamptz, standing text, standing_job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  s schedule;
begin
  select * into s from schedule where name = wanted and paused_at is null and removed_at is null for no key update;
  if not found then return; end if;
  planned_at := coalesce(as_of, clock_timestamp());
  select made.outcome, made.job into outcome, job
  from schedule_tick_settle(s, planned_at, null, false, schedule_trigger.by, schedule_trigger.reason) as made;
  if outcome is null then
    select t.outcome, t.job into standing, standing_job from schedule_tick as t
    where t.schedule = wanted and t.planned_at = schedule_trigger.planned_at;
  else
    update schedule set last_job = coalesce(schedule_trigger.job, last_job),
           waiting = waiting + case when schedule_trigger.outcome = 'waiting' then 1 else 0 end
    where name = wanted;
    insert into schedule_event (schedule, event, by, reason) values (wanted, 'triggered', schedule_trigger.by, schedule_trigger.reason);
  end if;
  return next;
end $$;
