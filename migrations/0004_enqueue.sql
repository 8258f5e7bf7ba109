-- Enqueueing: keys of unique jobs, the catalogue of definitions, and the functions for SQL and other languages.
-- requires-code: 4

-- Which job holds a key. Without expires_at it holds it until it is finished, else until then, finished or not.
-- Rows of jobs that are gone are taken over by the next one, or removed by a chore.
create table job_unique (
  scope      text not null check (octet_length(scope) between 1 and 200),
  key        text not null check (octet_length(key) between 1 and 200),
  job_id     uuid not null,
  expires_at timestamptz,
  primary key (scope, key)
);

alter table job_unique set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- The key of a unique job, for whoever brings it back when it is finished; its scope is the name of the job. By then
-- another job may hold the key.
alter table job add unique_key text;
alter table job_history add unique_key text;

-- What a definition says, for those who enqueue without it. Written by nodes; the newest version counts.
create table job_definition (
  name               text primary key check (octet_length(name) between 1 and 200),
  version            int not null,
  queue              text not null,
  priority           smallint not null,
  attempts           smallint not null,
  capability         text not null,
  -- Null: not unique. Keyed: its key is computed by a function that only JavaScript can call.
  unique_mode        text check (unique_mode in ('skip', 'replace', 'debounce')),
  unique_keyed       boolean not null,
  unique_for_ms      bigint,
  unique_max_wait_ms bigint,
  concurrency_limit  int,
  concurrency_keyed  boolean not null,
  rate_limit         int,
  rate_per_ms        bigint,
  rate_keyed         boolean not null,
  updated_at         timestamptz not null default now()
);

-- Inserts jobs, some of them unique: one answer per element, in their order. Reason null: it was made as ids[n]; else
-- 'exists' (that id was there), 'duplicate', 'replaced', 'debounced', 'running', and job names the one that stands.
--
-- The keys are locked first, in their order, so that bulks cannot deadlock; what stands is judged by the statements
-- after that, whose snapshots are younger than the lock (the function is volatile). In one statement it would be
-- judged by the snapshot from before the wait, and a key could be taken twice. Null in scopes: not unique. Null in
-- keys: the key is the hash of the input. Elements of gate_lists and tag_lists are text of arrays. Times are in ms.
--
-- The settings are for plans that are made while the tables are empty and kept when they are full.
create function job_enqueue(
  ids uuid[], own boolean[], lanes int[], priorities smallint[], attempts smallint[], delays float8[],
  times timestamptz[], inputs jsonb[], gate_lists text[], tag_lists text[], parents uuid[],
  scopes text[], keys text[], modes text[], windows float8[], max_waits float8[])
returns table (n int, job uuid, reason text, waits boolean, due_s bigint, xid text)
language plpgsql volatile
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
  moment   timestamptz;
  -- Per element: its key, the first and the last element of that key, and what becomes of them with which job.
  hashed   text[];
  firsts   int[];
  lasts    int[];
  verdicts text[];
  heads    uuid[];
  -- Keys that nobody held before; jobs that were inserted; jobs that took over new content.
  fresh    uuid[];
  made     uuid[];
  changed  uuid[];
begin
  select array_agg(g.key order by g.n), array_agg(g.first order by g.n), array_agg(g.last order by g.n)
    into hashed, firsts, lasts
  from (
    select k.n, k.key,
           case when k.scope is null then k.n else min(k.n) over same end as first,
           -- Of several that are skipped the first stays; otherwise the last one's content counts.
           case when k.scope is null then k.n when k.mode = 'skip' then min(k.n) over same
                else max(k.n) over same end as last
    from (
      select u.n, u.scope, u.mode,
             case when u.scope is not null
                  then coalesce(u.key, encode(sha256(convert_to(u.input::text, 'UTF8')), 'hex')) end as key
      from unnest(scopes, keys, modes, inputs) with ordinality as u(scope, key, mode, input, n)
    ) as k window same as (partition by k.scope, k.key)
  ) as g;

  with taken as (
    insert into job_unique as u (scope, key, job_id, expires_at)
    select g.scope, g.key, g.id, clock_timestamp() + g.wide * interval '1 ms'
    from unnest(scopes, hashed, ids, windows, firsts) with ordinality as g(scope, key, id, wide, first, n)
    where g.scope is not null and g.first = g.n
    order by g.scope, g.key
    -- Never true: it only locks the row, after waiting for whoever holds it.
    on conflict (scope, key) do update set job_id = u.job_id where false
    returning u.job_id
  ) select array_agg(job_id) into fresh from taken;

  -- What may be replaced must not be claimed meanwhile. Running jobs are not waited for.
  perform from job
  where id = any (array(
      select u.job_id from unnest(scopes, hashed, modes) as g(scope, key, mode)
      join job_unique as u on u.scope = g.scope and u.key = g.key where g.mode <> 'skip'))
    and state <> 3
  order by id for update;

  moment := clock_timestamp();
  select array_agg(g.verdict order by g.n), array_agg(g.head order by g.n) into verdicts, heads
  from (
    select e.n, first_value(e.verdict) over same as verdict,
           first_value(case when e.verdict in ('created', 'exists') then e.id else e.standing end) over same as head
    from (
      select g.n, g.scope, g.key, g.id, u.job_id as standing,
             case when g.own and (exists (select from job where id = g.id)
                                  or exists (select from job_history where id = g.id)) then 'exists'
                  when g.scope is null or u.job_id = g.id then 'created'
                  -- Until it starts there is something to put off, however late it is.
                  when g.mode = 'debounce' and j.state <> 3 then 'debounced'
                  when case when u.expires_at is null then j.id is null else u.expires_at <= moment end then 'created'
                  when g.mode = 'skip' then 'duplicate'
                  when j.state = 3 then 'running'
                  when g.mode = 'debounce' then 'created'
                  when j.id is null then 'duplicate'
                  else 'replaced' end as verdict
      from unnest(ids, own, scopes, hashed, modes) with ordinality as g(id, own, scope, key, mode, n)
      left join job_unique as u on u.scope = g.scope and u.key = g.key
      left join job as j on j.id = u.job_id
    ) as e
    window same as (partition by e.scope, e.key, case when e.scope is null then e.n end order by e.n)
  ) as g;

  if verdicts && array['replaced', 'debounced'] then
    with updated as (
      update job as j
      set lane = g.lane, priority = g.priority, attempts_max = g.attempts, input = g.input, tags = g.tags::text[],
          gates = g.gates::text[], run_at = g.at, due = g.at + (100 - g.priority) * interval '6 s',
          -- What earlier attempts came to says nothing about this input.
          attempt = 0, crashes = 0, errors = null,
          state = g.state, stage = g.state, gate = case when g.state = 1 then (g.gates::text[])[1] end
      from (
        select w.*, case when w.at > moment then 0
                         when w.gates is null then 2
                         -- It has passed these gates already.
                         when w.was = 2 and w.gates::text[] = w.had then 2 else 1 end as state
        from (
          select p.*, s.state as was, s.gates as had,
                 case when p.verdict = 'debounced'
                      then least(moment + p.wide * interval '1 ms', s.created_at + p.max_wait * interval '1 ms')
                      -- What could run already keeps its place.
                      when p.time is null and coalesce(p.delay, 0) = 0 then least(s.run_at, moment)
                      else coalesce(p.time, moment + p.delay * interval '1 ms') end as at
          from unnest(heads, verdicts, lasts, lanes, priorities, attempts, delays, times, inputs, gate_lists, tag_lists,
                      windows, max_waits) with ordinality
               as p(head, verdict, last, lane, priority, attempts, delay, time, input, gates, tags, wide, max_wait, n)
          join job as s on s.id = p.head
          where p.verdict in ('replaced', 'debounced') and p.last = p.n
        ) as w
      ) as g
      where j.id = g.head and j.state <> 3
      returning j.id
    ) select array_agg(id) into changed from updated;
  end if;

  with inserted as (
    insert into job (id, lane, state, stage, priority, attempts_max, run_at, due, gates, gate, tags, parent, input,
                     unique_key)
    select g.head, g.lane, g.state, g.state, g.priority, g.attempts, g.at, g.at + (100 - g.priority) * interval '6 s',
           g.gates::text[], case when g.state = 1 then (g.gates::text[])[1] end, g.tags::text[], g.parent, g.input,
           g.key
    from (
      select w.*, case when w.at > moment then 0 when w.gates is null then 2 else 1 end as state
      from (
        select p.*, case when p.mode = 'debounce' then moment + least(p.wide, p.max_wait) * interval '1 ms'
                         else coalesce(p.time, moment + coalesce(p.delay, 0) * interval '1 ms') end as at
        from unnest(heads, verdicts, lasts, lanes, priorities, attempts, delays, times, inputs, gate_lists, tag_lists,
                    parents, hashed, modes, windows, max_waits) with ordinality
             as p(head, verdict, last, lane, priority, attempts, delay, time, input, gates, tags, parent, key, mode,
                  wide, max_wait, n)
        where p.verdict = 'created' and p.last = p.n
      ) as w
    ) as g
    order by g.head
    on conflict (id) do nothing
    returning id
  ) select array_agg(id) into made from inserted;

  -- A job of the same id may have finished since it was looked for.
  if true = any (own) then
    with twins as (
      delete from job using job_history as h
      where job.id = any (made) and h.id = job.id and job.claims = 0 returning job.id
    ) select array_agg(m) into made from unnest(made) as m where m not in (select id from twins);

    delete from job_unique as u using unnest(scopes, hashed) as g(scope, key)
    where u.scope = g.scope and u.key = g.key and u.job_id = any (fresh) and u.job_id <> all (coalesce(made, '{}'));
  end if;

  update job_unique as u
  set job_id = g.head, expires_at = moment + g.wide * interval '1 ms'
  from unnest(scopes, hashed, heads, verdicts, windows, firsts) with ordinality
       as g(scope, key, head, verdict, wide, first, n)
  where u.scope = g.scope and u.key = g.key and g.first = g.n
    and (g.verdict = 'debounced'
         or g.verdict = 'created' and u.job_id <> g.head and g.head in (select unnest(made)));

  return query
  select g.n::int, g.head,
         case when g.verdict in ('replaced', 'debounced') and g.head not in (select unnest(changed)) then 'running'
              when g.verdict <> 'created' then g.verdict
              when g.first = g.n then case when g.head in (select unnest(made)) then null else 'exists' end
              else case g.mode when 'skip' then 'duplicate' when 'replace' then 'replaced' else 'debounced' end end,
         j.state = 0, floor(extract(epoch from j.due))::bigint, pg_current_xact_id()::text
  from unnest(heads, verdicts, firsts, modes) with ordinality as g(head, verdict, first, mode, n)
  left join job as j on j.id = g.head and g.verdict in ('created', 'replaced', 'debounced')
  order by g.n;
end $$;

-- A version 7 UUID of this moment; several of one statement rise with n.
create function job_uuid(n bigint default 0) returns uuid
language sql volatile set search_path from current as $$
  select encode(substring(int8send(t.ticks >> 12) from 3) || substring(int4send(28672 | (t.ticks & 4095)::int) from 3)
                || substring(uuid_send(gen_random_uuid()) from 9), 'hex')::uuid
  -- 4,096 ticks in a millisecond.
  from (select floor(extract(epoch from clock_timestamp()) * 4096000)::bigint + n as ticks) as t
$$;

-- The number of a lane, made if need be. A caller that rolls back burns a number, which is all.
create function job_lane_of(queue text, name text, version int, capability text) returns int
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  found_id int;
begin
  for round in 1 .. 2 loop
    select l.id into found_id from job_lane as l
    where l.queue = queue and l.name = name and l.version = version and l.capability = capability;
    exit when found_id is not null;
    insert into job_lane (queue, name, version, capability) values (queue, name, version, capability)
    on conflict do nothing;
  end loop;
  return found_id;
end $$;

-- What is wrong with the arguments of an enqueue that does not depend on its definition, as SQLSTATE, message and hint.
create function job_refuse(queue text, run_at timestamptz, priority int, key text, tags text[]) returns void
language plpgsql stable set search_path from current as $$
begin
  if queue is not null and (octet_length(queue) > 200 or queue !~ '^[[:alnum:]][[:alnum:]._:/-]*$')
     and not exists (select from job_lane as l where l.queue = job_refuse.queue) then
    raise exception 'forge: the queue name % is not valid', quote_literal(left(queue, 60)) using errcode = 'ZF003',
      hint = 'A name is 1 to 200 bytes of letters, digits and . _ : / -, a letter or digit first.';
  end if;
  if priority not between 0 and 100 then
    raise exception 'forge: priority % is out of range', priority using errcode = 'ZF005',
      hint = 'Pass a whole number from 0 (background) to 100 (critical), or null for that of the definition.';
  end if;
  if run_at not between '1970-01-01 00:00Z' and '2200-01-01 00:00Z' then
    raise exception 'forge: run_at % is out of range', run_at using errcode = 'ZF006',
      hint = 'Pass a moment between 1970 and 2200, or null for now.';
  end if;
  if octet_length(key) not between 1 and 200 then
    raise exception 'forge: the key takes % bytes', octet_length(key) using errcode = 'ZF006',
      hint = 'A key is 1 to 200 bytes of text. Hash what is longer.';
  end if;
  if array_ndims(tags) > 1 or cardinality(tags) > 20
     or exists (select from unnest(tags) as t where t is null or octet_length(t) not between 1 and 100) then
    raise exception 'forge: the tags are not valid' using errcode = 'ZF006',
      hint = 'Pass at most 20 tags of 1 to 100 bytes each.';
  end if;
end $$;

-- The definition of a name, if a job of it can be enqueued with this key and time.
create function job_definition_for(name text, key text, run_at timestamptz) returns job_definition
language plpgsql stable set search_path from current as $$
declare
  d job_definition;
begin
  select * into d from job_definition as f where f.name = job_definition_for.name;
  if d.name is null then
    raise exception 'forge: no job is defined as %', coalesce(quote_literal(left(name, 60)), 'null')
      using errcode = 'ZF001', hint = 'A definition is known from the first attach of a process that has it. '
        || 'Names are case-sensitive; those that are known stand in table job_definition.';
  end if;
  if key is null and (d.unique_keyed or d.concurrency_keyed or d.rate_keyed) then
    raise exception 'forge: % needs a key', quote_literal(d.name) using errcode = 'ZF002',
      hint = 'Its definition computes one with `by`, which SQL cannot call. Pass the same text: key => ...';
  end if;
  if key is not null and d.unique_mode is null and d.concurrency_limit is null and d.rate_limit is null then
    raise exception 'forge: % takes no key', quote_literal(d.name) using errcode = 'ZF006',
      hint = 'A key is for definitions with unique, concurrency or rate.';
  end if;
  if run_at is not null and d.unique_mode = 'debounce' then
    raise exception 'forge: % takes no run_at', quote_literal(d.name) using errcode = 'ZF006',
      hint = 'Its definition is debounced: it runs so long after the last call as `for` says.';
  end if;
  return d;
end $$;

-- What enqueue and enqueue_many share. At most 100,000 inputs.
create function job_enqueue_named(
  name text, inputs jsonb[], queue text, run_at timestamptz, priority int, key text, id uuid, tags text[], parent uuid,
  wake boolean)
returns setof uuid
language plpgsql volatile set search_path from current as $$
#variable_conflict use_variable
declare
  d     job_definition;
  many  int := coalesce(cardinality(inputs), 0);
  gates text[];
  lane  int;
  big   int;
  row   record;
  due   bigint;
  later boolean := false;
begin
  perform job_refuse(queue, run_at, priority, key, tags);
  d := job_definition_for(name, key, run_at);
  if many = 0 then return; end if;
  if many > 100000 then
    raise exception 'forge: % inputs are too many', many using errcode = 'ZF006', hint = 'Pass at most 100000 at once.';
  end if;
  select max(octet_length(i::text)) into big from unnest(inputs) as i;
  if big > 1000000 then
    raise exception 'forge: an input takes % bytes', big using errcode = 'ZF004',
      hint = 'The limit is 1000000 bytes of JSON. Store it elsewhere and pass a reference.';
  end if;
  queue := coalesce(queue, d.queue);
  lane := job_lane_of(queue, d.name, d.version, d.capability);
  gates := job_gates(d.name, queue, key, key);
  if cardinality(tags) = 0 then tags := null; end if;
  for row in
    select e.* from job_enqueue(
      array(select coalesce(id, job_uuid(i)) from generate_series(1, many) as i),
      array_fill(id is not null, array[many]), array_fill(lane, array[many]),
      array_fill(coalesce(priority, d.priority)::smallint, array[many]),
      array_fill(d.attempts, array[many]), array_fill(null::float8, array[many]), array_fill(run_at, array[many]),
      inputs, array_fill(gates::text, array[many]), array_fill(tags::text, array[many]),
      array_fill(parent, array[many]), array_fill(case when d.unique_mode is not null then d.name end, array[many]),
      array_fill(key, array[many]),
      array_fill(d.unique_mode, array[many]), array_fill(d.unique_for_ms::float8, array[many]),
      array_fill(d.unique_max_wait_ms::float8, array[many])) as e
    order by e.n
  loop
    due := least(due, case when not row.waits and gates is null then row.due_s end);
    later := later or coalesce(row.waits or gates is not null, false);
    return next row.job;
  end loop;
  if wake then perform job_wake(lane, due, later); end if;
end $$;

-- A hint to all nodes, when this transaction commits: the channel and the message of forge's own.
create function job_wake(lane int, due bigint, later boolean) returns void
language plpgsql volatile set search_path from current as $$
declare
  schema  text := current_schema();
  channel text := 'forge_' || schema;
  topics  jsonb := '{}';
begin
  if length(channel) > 63 then
    channel := left(channel, 46) || '_' || left(encode(sha256(convert_to(schema, 'UTF8')), 'hex'), 16);
  end if;
  if due is not null then topics := topics || jsonb_build_object('jobs.ready', array[lane || '@' || due]); end if;
  if later then topics := topics || jsonb_build_object('jobs.later', array[lane::text]); end if;
  if topics <> '{}' then perform pg_notify(channel, jsonb_build_object('n', 'sql', 't', topics)::text); end if;
end $$;

-- Public and stable: see docs/sql.md. They run as their owner, so that whoever may call them needs no table.

create function enqueue(
  name text, input jsonb default 'null', queue text default null, run_at timestamptz default null,
  priority int default null, key text default null, id uuid default null, tags text[] default null,
  parent uuid default null, wake boolean default false)
returns uuid
language sql volatile security definer set search_path from current as $$
  select job_enqueue_named(name, array[coalesce(input, 'null')], queue, run_at, priority, key, id, tags, parent, wake)
$$;

create function enqueue_many(
  name text, inputs jsonb, queue text default null, run_at timestamptz default null, priority int default null,
  key text default null, tags text[] default null, parent uuid default null, wake boolean default false)
returns setof uuid
language plpgsql volatile security definer set search_path from current as $$
begin
  if jsonb_typeof(inputs) is distinct from 'array' then
    raise exception 'forge: inputs must be a JSON array' using errcode = 'ZF006',
      hint = 'One element is the input of one job: ''[{"a": 1}, {"a": 2}]''.';
  end if;
  return query
  select job_enqueue_named(
    name, array(select e.input from jsonb_array_elements(inputs) with ordinality as e(input, n) order by e.n),
    queue, run_at, priority, key, null, tags, parent, wake);
end $$;

revoke all on function
  enqueue(text, jsonb, text, timestamptz, int, text, uuid, text[], uuid, boolean),
  enqueue_many(text, jsonb, text, timestamptz, int, text, text[], uuid, boolean) from public;
