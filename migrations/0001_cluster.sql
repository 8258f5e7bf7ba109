-- Nodes and their leases; chores that any one node does in turn.
-- requires-code: 1

-- One row per running process. The lease is judged by the database clock alone; `epoch` is random and changes when a
-- lease was declared dead, so that nothing claimed before can be mistaken for work of the reborn node.
create table node (
  id           uuid primary key,
  epoch        uuid not null,
  state        text not null check (state in ('active', 'draining', 'dead')),
  host         text not null,
  pid          int not null,
  version      text not null,
  roles        text[] not null,
  capabilities text[] not null,
  lease_until  timestamptz not null,
  started_at   timestamptz not null default now(),
  seen_at      timestamptz not null default now(),
  -- The last time a lease of this row was declared dead; rescue looks again for a while after it.
  died_at      timestamptz
) with (fillfactor = 50);

-- Work that one node at a time does at an interval: whoever moves next_at forward has the turn.
create table chore (
  name    text primary key,
  next_at timestamptz not null default '-infinity'
);
