-- Jobs: what is unfinished in one small hot table, what is finished in history partitions by day of expiry.
-- requires-code: 2

-- A lane is a class of jobs that the same nodes can run: claims name the lanes they serve, so jobs of other names,
-- versions and capabilities cost a claim nothing.
create table job_lane (
  id         int generated always as identity primary key,
  queue      text not null check (octet_length(queue) between 1 and 200),
  name       text not null check (octet_length(name) between 1 and 200),
  version    int not null default 1,
  capability text not null default '',
  unique (queue, name, version, capability)
);

-- What holds for a queue in the whole cluster. A queue without a row is not paused and has no limit.
create table job_queue (
  queue         text primary key check (octet_length(queue) between 1 and 200),
  -- Paused: nothing of it is claimed. Claims ask this table, so that no job starts after the pause is committed.
  paused_at     timestamptz,
  paused_by     text,
  paused_reason text
);
create index job_queue_paused on job_queue (queue) where paused_at is not null;

-- Which lanes each working node serves: for people who ask why a job waits.
create table job_worker (
  node  uuid primary key,
  lanes int[] not null
);

-- state: 0 scheduled, 1 blocked, 2 available, 3 running, 4 retryable. Final states live in job_history.
--
-- A claim changes nothing that an index looks at (the predicates go by stage, which is the same for available and
-- running), and pages are filled by half: so it is a heap-only update, which costs a third of one that writes index
-- entries. Who looks for running jobs goes by job_claim. Whoever writes state writes stage: as a generated column it
-- would be worked out anew in each claim, for a quarter of its cost.
create table job (
  id            uuid primary key,
  lane          int not null,
  state         smallint not null check (state between 0 and 4),
  -- What it waits for: 0 its time, 1 a gate, 2 a worker, or the end of its run.
  stage         smallint not null,
  priority      smallint not null check (priority between 0 and 100),
  attempt       smallint not null default 0 check (attempt >= 0),
  attempts_max  smallint not null check (attempts_max >= 1),
  -- Processes that died while they ran it; apart from attempts, which count what the handler itself did.
  crashes       smallint not null default 0,
  -- Rises with each claim: the `n` of job.fence, for stores that compare.
  claims        int not null default 0,
  run_at        timestamptz not null default now(),
  -- run_at + (100 - priority) * 6 s: urgency with a bound, one ascending order, no updates for aging.
  due           timestamptz not null,
  created_at    timestamptz not null default now(),
  -- The lease: which claim may write. Random per claim, named by every write of the worker.
  token         uuid,
  node          uuid,
  epoch         uuid,
  claimed_at    timestamptz,
  cancel_at     timestamptz,
  cancel_reason text,
  -- Limits: the gates it passes before each run, in order, and the one it waits at. Null for jobs without limits.
  gates         text[],
  gate          text,
  tags          text[],
  parent        uuid,
  progress      jsonb,
  input         jsonb not null,
  errors        jsonb,
  check (stage = case state when 3 then 2 when 4 then 0 else state end),
  check ((state = 1) = (gate is not null)),
  check ((state = 3) = (token is not null and node is not null and epoch is not null)),
  check (state = 3 or (token is null and node is null and epoch is null))
) with (fillfactor = 45);

-- What could run now, in the order of the claim; claims leave running jobs behind them.
create index job_ready on job (lane, due, id) where stage = 2;
-- Jobs that lost their process before (2 times and more): claims take them one by one.
create index job_suspect on job (lane, due) where stage = 2 and crashes >= 2;
-- What becomes available by itself, in the order of its time.
create index job_waiting on job (run_at) where stage = 0;
-- What waits at a gate, the most due first.
create index job_blocked on job (gate, due, id) where stage = 1;
-- One row for each claim, with the jobs that it took: those of a node that died are found by it. Gone when all of its jobs
-- have ended; until then some of them may have.
create table job_claim (
  token uuid primary key,
  node  uuid not null,
  epoch uuid not null,
  at    timestamptz not null default clock_timestamp(),
  ids   uuid[] not null
);

alter table job_claim alter ids set storage external;

create view job_running as
  select job.* from job_claim cross join unnest(job_claim.ids) as taken(id)
  -- One by one, by the key: a join might read the whole table.
  cross join lateral (select * from job where job.id = taken.id and job.token = job_claim.token limit 1) as job;

alter table job set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
                     autovacuum_analyze_scale_factor = 0.05);

-- state: 5 completed, 6 cancelled, 7 discarded, 8 quarantined. expires_on is the day (UTC) on which the whole
-- partition goes. There is no default partition: it would block attaching and detaching the others.
create table job_history (
  id               uuid not null,
  lane             int not null,
  state            smallint not null check (state between 5 and 8),
  priority         smallint not null,
  attempt          smallint not null,
  attempts_max     smallint not null,
  crashes          smallint not null,
  claims           int not null,
  run_at           timestamptz not null,
  created_at       timestamptz not null,
  claimed_at       timestamptz,
  finished_at      timestamptz not null default clock_timestamp(),
  expires_on       date not null,
  -- The claim that finished it: tells a worker whose connection broke during the commit that it did commit.
  token            uuid,
  node             uuid,
  input            jsonb not null,
  result           jsonb,
  result_too_large boolean not null default false,
  errors           jsonb,
  reason           text,
  gates            text[],
  tags             text[],
  parent           uuid
) partition by range (expires_on);

create index job_history_id on job_history (id);
-- The few that did not complete: dead letters and the failures on the status page.
create index job_history_failed on job_history (id) where state in (7, 8);

-- Finished jobs by lane, state and day of expiry, as deltas: one inserted row per batch, folded by a chore.
create table job_tally (
  lane       int not null,
  state      smallint not null,
  expires_on date not null,
  n          bigint not null
);
create index job_tally_expires on job_tally (expires_on);

-- The runtime role needs no DDL: these two functions are all it may do to partitions.

-- Makes the partition of one day; false when it is there. A day far from today is refused: nobody needs it.
create function job_history_partition(day date) returns boolean
language plpgsql security definer set search_path from current set lock_timeout = '2s' as $$
declare
  part text := 'job_history_' || to_char(day, 'YYYYMMDD');
  today date := (now() at time zone 'UTC')::date;
begin
  if day is null or day < today or day > today + 4000 then
    raise exception 'a history partition for % is out of range', day using errcode = '22023';
  end if;
  if to_regclass(part) is not null then return false; end if;
  perform pg_advisory_xact_lock(hashtextextended('forge:history:' || current_schema(), 0));
  -- Asked of the catalog itself: to_regclass may answer from a cache that was filled before the wait.
  if exists (select from pg_class where relname = part and relnamespace = current_schema()::regnamespace) then
    return false;
  end if;
  execute format('create table %I (like job_history including all)', part);
  execute format('alter table job_history attach partition %I for values from (%L) to (%L)', part, day, day + 1);
  return true;
end $$;

-- Drops the oldest partition whose day is over, and its tally; null when there is none. A short lock_timeout, since
-- a drop that waits behind one reader would hold up every completion behind it.
create function job_history_prune() returns text
language plpgsql security definer set search_path from current set lock_timeout = '100ms' as $$
declare
  part text;
  today date := (now() at time zone 'UTC')::date;
begin
  select c.relname into part
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'job_history'::regclass and c.relname ~ '^job_history_[0-9]{8}$'
    and to_date(right(c.relname, 8), 'YYYYMMDD') <= today
  order by c.relname limit 1;
  if part is null then return null; end if;
  execute format('drop table %I', part);
  delete from job_tally where expires_on <= to_date(right(part, 8), 'YYYYMMDD');
  return part;
end $$;

revoke all on function job_history_partition(date), job_history_prune() from public;
