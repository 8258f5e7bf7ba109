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
  -- The other name that it may have had, and whether it gave way to a new one of its own: see schedule_reconcile.
  renames    text,
  yielded    boolean not null default false,
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
  -- The job that it made; of one that was skipped, the unique job that stood in its way.
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
  -- When a living node last had it, to a day. One that is forgotten and comes back is young again.
  used_at       timestamptz not null default clock_timestamp(),
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
--
-- A name that comes new (or back), alone in saying what one other name says that no node defines beside it, may be that one
-- renamed: `renames` notes it. It is so when nobody defines the other any more: then that one yields at once, since under
-- both it would fire twice. That is a guess. So it comes back where it stood within `grace`, and nothing is inherited, a
-- pause least of all, but what came due between the last node of the old name and the first of the new.
create function schedule_reconcile(grace interval default '60 s')
returns table (name text, event text, detail text)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  w record;
begin
  perform pg_advisory_xact_lock(hashtextextended('forge:schedules:' || current_schema(), 0));
  for w in
    with offered as materialized (
      select o.node, each.name, each.hash
      from schedule_offer as o join node on node.id = o.node and node.state <> 'dead'
      cross join lateral unnest(o.names, o.hashes) as each(name, hash)
    ), wanted as (
      select distinct on (offered.name) offered.name, v.hash, v.spec
      from offered join schedule_version as v on v.name = offered.name and v.hash = offered.hash
      order by offered.name, v.first_seen_at desc, v.hash
    ), fresh as (
      select wanted.hash, min(wanted.name) as name
      from wanted left join schedule as s on s.name = wanted.name
      where s.name is null or s.removed_at is not null
      group by wanted.hash having count(*) = 1
    ), guessed as materialized (
      select offered.* from offered
      where name in (select fresh.name from fresh union all select s.name from schedule as s where s.renames is not null)
    ), beside as materialized (
      select distinct mine.name, other.name as other
      from guessed as mine join offered as other on other.node = mine.node and other.hash = mine.hash
    ), elder as (
      select fresh.name as of, min(s.name) as name
      from fresh join schedule as s on s.hash = fresh.hash and s.origin = 'code' and s.removed_at is null
      where not exists (select from beside where beside.name = fresh.name and beside.other = s.name)
      group by fresh.name having count(*) = 1
    ), heir as (
      select young.renames as of, min(young.name) as name from schedule as young
      where young.renames is not null and young.removed_at is null
        and exists (select from wanted where wanted.name = young.name and wanted.hash = young.hash)
        and not exists (select from beside where beside.name = young.name and beside.other = young.renames)
      group by young.renames
    )
    select coalesce(s.name, wanted.name) as name, wanted.hash, wanted.spec, s.origin, s.hash as old_hash,
           s.orphaned_at, s.removed_at, s.yielded, elder.name as elder, heir.name as heir,
           exists (select from wanted as still where still.name = elder.name) as elder_stays
    from wanted full join schedule as s on s.name = wanted.name
    left join elder on elder.of = wanted.name left join heir on heir.of = s.name
    where s.name is null
       or (wanted.name is not null and s.origin = 'runtime')
       or (wanted.name is not null and (s.hash <> wanted.hash or s.orphaned_at is not null))
       or (wanted.name is null and s.origin = 'code' and (s.removed_at is null or s.waiting > 0))
    order by 1
  loop
    name := w.name;
    detail := null;
    if w.origin is null then
      event := 'created';
      insert into schedule (name, origin, spec, hash, next_at, renames)
      values (w.name, 'code', w.spec, w.hash, clock_timestamp(), w.elder) on conflict do nothing;
      continue when not found;
    elsif w.origin = 'runtime' then
      -- What people made stands until people delete it.
      event := 'conflict';
      return next;
      continue;
    elsif w.hash is null then
      if w.heir is not null and w.removed_at is null then
        return query select * from schedule_yield(w.name, w.heir);
        continue;
      end if;
      if w.removed_at is not null then
        perform schedule_settle(w.name, grace);
        continue;
      end if;
      update schedule set orphaned_at = coalesce(orphaned_at, clock_timestamp()),
             removed_at = case when coalesce(orphaned_at, clock_timestamp()) <= clock_timestamp() - grace
                               then clock_timestamp() end
      where schedule.name = w.name and removed_at is null
      returning case when removed_at is not null then 'removed' end into event;
      continue when event is null;
    else
      -- What was due under the old rule and has not fired is looked for under the new one. What another name has fired
      -- in its place for long is not looked for at all.
      update schedule set spec = w.spec, hash = w.hash, orphaned_at = null, removed_at = null, yielded = false,
             renames = case when w.elder is not null then w.elder when hash = w.hash then renames end,
             -- Offered again as it was, it is what the leader has looked at.
             rev = rev + case when hash = w.hash and removed_at is null then 0 else 1 end, updated_at = clock_timestamp(),
             fault = null, failures = 0, held_until = null,
             planned = planned and hash = w.hash and not (yielded and removed_at < clock_timestamp() - grace),
             next_at = case when yielded and removed_at < clock_timestamp() - grace then clock_timestamp()
                            when hash = w.hash then next_at else least(next_at, clock_timestamp()) end
      where schedule.name = w.name and origin = 'code';
      event := case when w.hash <> w.old_hash then 'changed' when w.removed_at is not null then 'returned' end;
    end if;
    if event is not null then
      insert into schedule_event (schedule, event) values (w.name, event);
      return next;
    end if;
    if w.elder is not null and not w.elder_stays then
      return query select * from schedule_yield(w.elder, w.name);
    end if;
  end loop;
end $$;

-- A schedule of code gives way to the name that it has now, and says so under both. What came due and has not fired falls
-- to the new one, where that has just come.
create function schedule_yield(old text, new text) returns table (name text, event text, detail text)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  elder schedule;
begin
  -- As those who fire them do: in the order of their names.
  perform from schedule where schedule.name in (old, new) order by schedule.name for no key update;
  update schedule set orphaned_at = coalesce(orphaned_at, clock_timestamp()), removed_at = clock_timestamp(), yielded = true
  where schedule.name = old returning * into elder;
  update schedule set rev = rev + 1, next_at = elder.next_at
  where schedule.name = new and not planned and next_at > elder.next_at and elder.paused_at is null;
  insert into schedule_event (schedule, event, reason)
  values (old, 'renamed', 'renamed to ' || new), (new, 'renamed', 'renamed from ' || old);
  return query select new, 'renamed', old;
end $$;

-- Ticks that wait under a name that was renamed go nowhere, once it is certain.
create function schedule_settle(which text, grace interval) returns void
language plpgsql volatile set search_path from current as $$
begin
  update schedule set waiting = 0
  where name = which and yielded and waiting > 0 and removed_at <= clock_timestamp() - grace;
  if not found then return; end if;
  -- After whoever fires it has let it go.
  update schedule_tick set outcome = 'skipped' where schedule = which and outcome = 'waiting';
end $$;

-- Deletes a schedule, those of code only where no running code defines them any more. False: it was not there, or not so.
create function schedule_delete(which text, by text, reason text) returns boolean
language plpgsql volatile set search_path from current as $$
begin
  delete from schedule where name = which and (origin = 'runtime' or removed_at is not null);
  if not found then return false; end if;
  -- After whoever fires it has let it go.
  update schedule_tick set outcome = 'skipped' where schedule = which and outcome = 'waiting';
  insert into schedule_event (schedule, event, by, reason) values (which, 'deleted', by, reason);
  return true;
end $$;

-- Writes a tick down, and says what becomes of it: null when it stood already, and then nothing follows. `pending`: a job of
-- this schedule is about to be made. `asked`: people want it, also where it was missed or skipped.
create function schedule_tick_note(
  s schedule, at timestamptz, missed boolean, pending boolean, asked boolean, by text, reason text, out outcome text)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  overlap text := s.spec->>'overlap';
  busy boolean := overlap <> 'allow' and (pending or exists (select from job as j where j.id = s.last_job));
begin
  outcome := case when missed then 'missed'
                  when busy and overlap = 'skip' then 'skipped'
                  when (busy or s.waiting > 0) and overlap = 'queue'
                  then case when s.waiting >= 1000 then 'skipped' else 'waiting' end
                  else 'fired' end;
  insert into schedule_tick as t (schedule, planned_at, outcome, by, reason) values (s.name, at, outcome, by, reason)
  on conflict (schedule, planned_at) do update
     set outcome = excluded.outcome, job = null, by = excluded.by, reason = excluded.reason, fired_at = clock_timestamp()
   where asked and t.outcome in ('missed', 'skipped');
  if not found then outcome := null; end if;
end $$;

-- The jobs of ticks that stand: one for each, in their order, by the definitions of their names. Where a unique job stands
-- that is not replaced, `fresh` is false and the tick is skipped; `made` then names that job.
create function schedule_make(
  names text[], ats timestamptz[], run_ats timestamptz[], specs jsonb[], out made uuid[], out fresh boolean[])
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  many       int := cardinality(names);
  spec       jsonb;
  d          job_definition;
  queue      text;
  lanes      int[];
  priorities smallint[];
  attempts   smallint[];
  inputs     jsonb[];
  gate_lists text[];
  tag_lists  text[];
  scopes     text[];
  keys       text[];
  modes      text[];
  windows    float8[];
  max_waits  float8[];
begin
  for n in 1 .. many loop
    spec := specs[n];
    keys[n] := spec->>'key';
    perform job_refuse(spec->>'queue', run_ats[n], (spec->>'priority')::int, keys[n], null);
    d := job_definition_for(spec->>'job', keys[n], run_ats[n]);
    queue := coalesce(spec->>'queue', d.queue);
    lanes[n] := job_lane_of(queue, d.name, d.version, d.capability);
    priorities[n] := coalesce((spec->>'priority')::smallint, d.priority);
    attempts[n] := d.attempts;
    inputs[n] := case when (spec->>'wrapped')::boolean
      then jsonb_build_object('scheduledFor', ats[n], 'input', spec->'input',
                              'late', round(extract(epoch from clock_timestamp() - ats[n]) * 1000))
      else spec->'input' end;
    gate_lists[n] := job_gates(d.name, queue, keys[n], keys[n])::text;
    tag_lists[n] := array['cron:' || names[n]]::text;
    scopes[n] := case when d.unique_mode is not null then d.name end;
    modes[n] := d.unique_mode;
    windows[n] := d.unique_for_ms;
    max_waits[n] := d.unique_max_wait_ms;
  end loop;
  select array_agg(e.job order by e.n), array_agg(e.reason is null or e.reason in ('replaced', 'debounced') order by e.n)
    into made, fresh from job_enqueue(
    array(select job_uuid(i) from generate_series(1, many) as i), array_fill(false, array[many]), lanes, priorities,
    attempts, array_fill(null::float8, array[many]), run_ats, inputs, gate_lists, tag_lists,
    array_fill(null::uuid, array[many]), scopes, keys, modes, windows, max_waits) as e;
  update schedule_tick as t
     set outcome = case when g.fresh then 'fired' else 'skipped' end, job = g.job, fired_at = clock_timestamp()
    from unnest(names, ats, made, fresh) as g(name, at, job, fresh) where t.schedule = g.name and t.planned_at = g.at;
end $$;

-- Fires ticks, as a leader of role scheduler has worked them out: a list of {name, rev, next, ticks: [{at, run_at, missed}]}
-- in which all times are text. Nothing of a schedule that was changed meanwhile, and nothing that is not yet due by this
-- clock. Afterwards a schedule waits for `next` (null: for nothing). Answers with all ticks but those that were missed.
create function schedule_fire(under_term uuid, plans jsonb)
returns table (name text, planned_at timestamptz, outcome text, job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  p        record;
  t        record;
  s        schedule;
  pending  boolean;
  -- Of each schedule, and of each tick that makes a job.
  done     text[] := '{}';
  nexts    timestamptz[] := '{}';
  lasts    timestamptz[] := '{}';
  waitings int[] := '{}';
  names    text[] := '{}';
  ats      timestamptz[] := '{}';
  run_ats  timestamptz[] := '{}';
  specs    jsonb[] := '{}';
  made     uuid[] := '{}';
  fresh    boolean[] := '{}';
begin
  if not leads('scheduler', under_term) then
    raise exception 'forge: the term is over' using errcode = 'ZF010';
  end if;
  for p in
    select x.* from jsonb_to_recordset(plans) as x(name text, rev bigint, next timestamptz, ticks jsonb) order by x.name
  loop
    select * into s from schedule as c
    where c.name = p.name and c.rev = p.rev and c.paused_at is null and c.removed_at is null for no key update;
    continue when not found;
    continue when exists (
      select from jsonb_to_recordset(p.ticks) as y(at timestamptz) where y.at > clock_timestamp());
    pending := false;
    for t in
      select y.* from jsonb_to_recordset(p.ticks) as y(at timestamptz, run_at timestamptz, missed boolean) order by y.at
    loop
      outcome := schedule_tick_note(s, t.at, t.missed, pending, false, null, null);
      continue when outcome is null;
      s.last_at := t.at;
      if outcome = 'fired' then
        pending := true;
        names := names || p.name;
        ats := ats || t.at;
        run_ats := run_ats || t.run_at;
        specs := specs || s.spec;
      elsif outcome <> 'missed' then
        if outcome = 'waiting' then s.waiting := s.waiting + 1; end if;
        name := p.name;
        planned_at := t.at;
        return next;
      end if;
    end loop;
    done := done || p.name;
    nexts := nexts || p.next;
    lasts := lasts || s.last_at;
    waitings := waitings || s.waiting;
  end loop;
  if names <> '{}' then
    select m.made, m.fresh into made, fresh from schedule_make(names, ats, run_ats, specs) as m;
  end if;
  update schedule as c
     set next_at = g.next, planned = true, last_at = g.last, waiting = g.waits, fault = null, failures = 0, held_until = null,
         last_job = coalesce((select m.id from unnest(names, ats, made) as m(name, at, id)
                              where m.name = g.name order by m.at desc limit 1), c.last_job)
    from unnest(done, nexts, lasts, waitings) as g(name, next, last, waits)
   where c.name = g.name;
  return query select m.name, m.at, case when m.fresh then 'fired' else 'skipped' end, m.id
               from unnest(names, ats, made, fresh) as m(name, at, id, fresh);
end $$;

-- Fires ticks that waited for the job of the one before, where that has ended: one of each schedule, or of one; the
-- same answer.
create function schedule_release(under_term uuid, which text)
returns table (name text, planned_at timestamptz, outcome text, job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  s     schedule;
  next  timestamptz;
  names text[] := '{}';
  ats   timestamptz[] := '{}';
  specs jsonb[] := '{}';
  made  uuid[] := '{}';
  fresh boolean[] := '{}';
begin
  if not leads('scheduler', under_term) then
    raise exception 'forge: the term is over' using errcode = 'ZF010';
  end if;
  for s in
    select c.* from schedule as c
    where c.waiting > 0 and c.paused_at is null and c.removed_at is null and (which is null or c.name = which)
      and (c.held_until is null or c.held_until <= clock_timestamp())
      and not exists (select from job as j where j.id = c.last_job)
    order by c.last_at limit 100 for no key update skip locked
  loop
    select t.planned_at into next from schedule_tick as t
    where t.schedule = s.name and t.outcome = 'waiting' order by t.planned_at limit 1;
    if next is null then
      update schedule as c set waiting = 0 where c.name = s.name;
    else
      names := names || s.name;
      ats := ats || next;
      specs := specs || s.spec;
    end if;
  end loop;
  if names = '{}' then return; end if;
  select m.made, m.fresh into made, fresh
    from schedule_make(names, ats, array_fill(null::timestamptz, array[cardinality(names)]), specs) as m;
  update schedule as c set waiting = c.waiting - 1, last_job = m.id, fault = null, failures = 0, held_until = null
    from unnest(names, made) as m(name, id) where c.name = m.name;
  return query select m.name, m.at, case when m.fresh then 'fired' else 'skipped' end, m.id
               from unnest(names, ats, made, fresh) as m(name, at, id, fresh);
end $$;

-- A tick that somebody asks for, now or as of a time that has passed: one that was missed or skipped fires after all.
-- Unknown, removed and paused schedules give no row; a tick that fired or waits is told as it stands.
create function schedule_trigger(wanted text, by text, reason text, as_of timestamptz)
returns table (outcome text, job uuid, planned_at timestamptz, standing text, standing_job uuid)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  s     schedule;
  fresh boolean := true;
begin
  -- So far the clocks of callers may be ahead.
  if as_of > clock_timestamp() + interval '5 min' then
    raise exception 'forge: a tick as of % lies in the future', as_of using errcode = 'ZF006';
  end if;
  select * into s from schedule as c
  where c.name = wanted and c.paused_at is null and c.removed_at is null for no key update;
  if not found then return; end if;
  -- A caller whose clock is ahead does not take the place of a tick that is still to come.
  planned_at := least(as_of, clock_timestamp());
  outcome := schedule_tick_note(s, planned_at, false, false, true, by, reason);
  if outcome is null then
    select t.outcome, t.job into standing, standing_job from schedule_tick as t
    where t.schedule = wanted and t.planned_at = planned_at;
    return next;
    return;
  end if;
  if outcome = 'fired' then
    select m.made[1], m.fresh[1] into job, fresh
      from schedule_make(array[wanted], array[planned_at], array[null::timestamptz], array[s.spec]) as m;
    if not fresh then outcome := 'skipped'; end if;
  end if;
  update schedule as c
     set last_job = coalesce(job, c.last_job), waiting = c.waiting + case when outcome = 'waiting' then 1 else 0 end
   where c.name = wanted;
  insert into schedule_event (schedule, event, by, reason) values (wanted, 'triggered', by, reason);
  return next;
end $$;
