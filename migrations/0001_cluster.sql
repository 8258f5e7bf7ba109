-- Nodes and their leases.
-- requires-code: 1

-- One row per running process. The lease is judged by the database clock alone; `epoch` is random and changes when a
-- lease was declared dead, so that nothing claimed before can be mistaken for work of the reborn node.
create table node (
  id           uuid primary key,
  epoch        uuid not null,
  state        text not null check (state in ('joining', 'active', 'draining', 'dead')),
  host         text not null,
  pid          int not null,
  version      text not null,
  roles        text[] not null,
  capabilities text[] not null,
  lease_until  timestamptz not null,
  started_at   timestamptz not null default now(),
  seen_at      timestamptz not null default now(),
  -- What it carries and serves, as it says itself: see src/cluster/load.ts.
  load         jsonb,
  serves       jsonb,
  -- It was asked to take nothing new; that outlives its lease.
  drains       boolean not null default false,
  -- The last time a lease of this row was declared dead; rescue looks again for a while after it.
  died_at      timestamptz
) with (fillfactor = 50);
