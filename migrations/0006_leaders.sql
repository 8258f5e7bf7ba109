-- Leadership: which node leads what, by terms that expire, and who led before.
-- requires-code: 4

-- The standing term of each role. The database clock judges it; what only a leader may write names it. A role that nobody
-- asks for any more keeps its row: `n` goes on from it.
create table leader (
  role       text primary key check (octet_length(role) between 1 and 200),
  term       uuid not null,
  -- Rises with each term: for stores that compare.
  n          bigint not null check (n >= 0),
  node       uuid not null,
  epoch      uuid not null,
  expires_at timestamptz not null,
  -- The connection of its node's pulse held the advisory lock of the role at the last renewal.
  locked     boolean not null,
  began_at   timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- All terms of 30 days, the last 1,000 of each role: for people who ask who led when.
create table leader_term (
  role     text not null,
  n        bigint not null,
  term     uuid not null,
  node     uuid not null,
  host     text not null,
  pid      int not null,
  began_at timestamptz not null,
  -- Null: nobody has followed, and nobody has resigned.
  ended_at timestamptz,
  -- 'resigned'; 'expired'; 'unlocked': its lock was free, so its connection was gone.
  ended    text check (ended in ('resigned', 'expired', 'unlocked')),
  primary key (role, n),
  check ((ended is null) = (ended_at is null))
);

create function leader_key(which text) returns bigint
language sql stable set search_path from current as $$
  select hashtextextended('forge:leader:' || current_schema() || ':' || which, 0)
$$;

-- True when this very connection holds the lock of the role.
create function leader_holds(which text) returns boolean
language sql stable set search_path from current as $$
  select exists (
    select from pg_locks, leader_key(which) as key
    where locktype = 'advisory' and pid = pg_backend_pid() and objsubid = 1
      and database = (select oid from pg_database where datname = current_database())
      and classid::bigint = (key >> 32) & 4294967295 and objid::bigint = key & 4294967295)
$$;

-- A session may hold a lock several times over.
create function leader_unlock(which text) returns void
language plpgsql volatile set search_path from current as $$
begin
  while leader_holds(which) loop
    perform pg_advisory_unlock(leader_key(which));
  end loop;
end $$;

-- Renews the terms that this node (id and epoch) holds, and takes over those that it may: the term is over; or it says
-- that its leader held the lock, and the lock could be had. So a leader that goes is followed as soon as its connection
-- is gone, and one that hangs when its term is over. A term that began without the lock is not undone by its coming
-- free: whoever stood by while it was held lets go of it, and the leader takes it at its next renewal.
--
-- The lease of the node is renewed in the same statement. So a row that somebody else has locked is passed over (then
-- `renewed` is false, or the role is taken the next time), and what goes wrong with one role is its `fault` and no more.
create function lead(candidate uuid, under uuid, wanted text[], locking boolean, term_ms float8)
returns table (role text, term uuid, n bigint, locked boolean, renewed boolean, fault text)
language plpgsql volatile set search_path from current as $$
#variable_conflict use_column
declare
  which text;
  standing leader;
  expired boolean;
  has boolean;
begin
  -- In one order, so that no two nodes wait for each other.
  for which in select w from unnest(wanted) as w order by w collate "C" loop
    has := false;
    begin
      select * into standing from leader where role = which;
      if not found then
        insert into leader (role, term, n, node, epoch, expires_at, locked)
        values (which, gen_random_uuid(), (select coalesce(max(past.n), 0) from leader_term past where past.role = which),
                candidate, gen_random_uuid(), '-infinity', false)
        on conflict do nothing;
        select * into standing from leader where role = which;
      end if;
      expired := standing.expires_at <= clock_timestamp();

      if standing.node = candidate and standing.epoch = under and not expired then
        has := locking and (leader_holds(which) or pg_try_advisory_lock(leader_key(which)));
        perform from leader where role = which and term = standing.term for no key update skip locked;
        if found then
          update leader set expires_at = clock_timestamp() + term_ms * interval '1 ms', locked = has where role = which;
        end if;
        return query select which, standing.term, standing.n, has, found, null::text;
        continue;
      end if;

      if not expired and not standing.locked then
        if locking then perform leader_unlock(which); end if;
        continue;
      end if;
      has := locking and pg_try_advisory_lock(leader_key(which));
      continue when not has and not expired;
      -- In the strongest mode: what is under way under the old term (`leads`) is over before another begins.
      perform from leader
      where role = which and term = standing.term and (expires_at <= clock_timestamp() or (has and locked))
        and exists (select from node where id = candidate and epoch = under and state = 'active')
      for update skip locked;
      if not found then
        if has then perform leader_unlock(which); end if;
        continue;
      end if;
      update leader
         set term = gen_random_uuid(), n = n + 1, node = candidate, epoch = under, locked = has,
             expires_at = clock_timestamp() + term_ms * interval '1 ms', began_at = clock_timestamp()
       where role = which returning * into standing;
      update leader_term set ended_at = clock_timestamp(), ended = case when expired then 'expired' else 'unlocked' end
       where role = which and n = standing.n - 1 and ended_at is null;
      insert into leader_term (role, n, term, node, host, pid, began_at)
      select which, standing.n, standing.term, candidate, node.host, node.pid, standing.began_at
      from node where id = candidate;
      delete from leader_term where role = which and n <= standing.n - 1000;
      return query select which, standing.term, standing.n, has, true, null::text;
    exception when others then
      -- A lock of the session outlives what is rolled back.
      if has then perform leader_unlock(which); end if;
      return query select which, null::uuid, null::bigint, false, false, sqlerrm;
    end;
  end loop;
end $$;

-- Gives roles up, for the next who asks. Called on the connection that may hold their locks.
create function resign(candidate uuid, under uuid, roles text[]) returns void
language plpgsql volatile set search_path from current as $$
declare
  which text;
begin
  for which in select w from unnest(roles) as w order by w collate "C" loop
    update leader set expires_at = clock_timestamp(), locked = false
     where role = which and node = candidate and epoch = under and expires_at > clock_timestamp();
    if found then
      update leader_term as past set ended_at = clock_timestamp(), ended = 'resigned'
        from leader
       where leader.role = which and past.role = which and past.n = leader.n and past.ended_at is null;
    end if;
    perform leader_unlock(which);
  end loop;
end $$;

-- For what only a leader may write, in the same statement: true while this is the standing term. The term cannot pass to
-- another node before the transaction ends. As `where (select leads(…))` it is asked once, not for each row.
--
-- So the transaction must end: the settings are for it alone, and let the server end it within half a minute when its host
-- vanishes from the network, and after 10 s when its process stands still.
create function leads(which text, under_term uuid) returns boolean
language plpgsql volatile set search_path from current as $$
begin
  perform set_config('tcp_keepalives_idle', '10', true), set_config('tcp_keepalives_interval', '5', true),
          set_config('tcp_keepalives_count', '3', true);
  if (select setting::int not between 1 and 10000 from pg_settings where name = 'idle_in_transaction_session_timeout') then
    perform set_config('idle_in_transaction_session_timeout', '10s', true);
  end if;
  perform from leader where role = which and term = under_term and expires_at > clock_timestamp() for key share;
  return found;
end $$;
