import { statement } from './statement.js'

/**
 * Settings of a connection of our own, and who answers, in one trip. Behind a pooler the backend that answers is not
 * the one the protocol named ($1), and then no session setting is made: it would leak to the pooler's next client.
 *
 * No sequential scans where an index serves: a plan that is made while the tables are empty, and kept, would read all
 * of them when they are full. No JIT: what is discouraged is priced so high that it would be compiled.
 */
export const openSession = statement<{ pid: number; version: number; standby: boolean }>(
  'forge_open_session',
  () => `
  select pg_backend_pid() as pid,
         current_setting('server_version_num')::int as version,
         pg_is_in_recovery() as standby,
         case when pg_backend_pid() = $1::int then
           array[ set_config('application_name', $2, false),
                  set_config('statement_timeout', $3, false),
                  set_config('lock_timeout', $4, false),
                  set_config('idle_in_transaction_session_timeout', $5, false),
                  set_config('idle_session_timeout', '0', false),
                  case when current_setting('server_version_num')::int >= 170000
                       then set_config('transaction_timeout', '0', false) end,
                  set_config('plan_cache_mode', $6, false),
                  set_config('enable_seqscan', 'off', false),
                  set_config('jit', 'off', false),
                  set_config('default_transaction_isolation', 'read committed', false),
                  set_config('default_transaction_read_only', 'off', false),
                  set_config('datestyle', 'ISO', false),
                  set_config('client_min_messages', 'warning', false) ]
         end as settings`,
)

/** The same settings for one transaction: the only kind that is safe behind a transaction-mode pooler. */
export const openTransaction = statement(
  'forge_open_transaction',
  () => `
  select set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
         set_config('idle_in_transaction_session_timeout', $3, true), set_config('enable_seqscan', 'off', true),
         set_config('jit', 'off', true), set_config('datestyle', 'ISO', true)`,
)

export const backendPid = statement<{ pid: number }>(
  'forge_backend_pid',
  () => 'select pg_backend_pid() as pid',
)

export const begin = 'begin isolation level read committed read write'
export const beginPlain = 'begin'
export const commit = 'commit'
export const rollback = 'rollback'

/**
 * A hint is an untrusted string of at most 7,999 bytes; pg_notify takes it as a bound value. Its commit does not wait for
 * the disk: nothing is lost with a hint, and what is behind it on this connection would wait too.
 */
export const notify = statement(
  'forge_notify',
  () => `select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`,
)

export const databaseClock = statement<{ wall_ms: number }>(
  'forge_database_clock',
  () => `select extract(epoch from clock_timestamp())::float8 * 1000 as wall_ms`,
)

/**
 * Whether there is a ledger. Asked of the catalog itself: to_regclass may answer from a cache that was filled before
 * the wait for the migrators' lock, and the migrator that waited would apply everything once more.
 */
export const ledgerExists = statement<{ there: boolean }>(
  'forge_ledger_exists',
  (schema) => `
  select exists (select from pg_class join pg_namespace on pg_namespace.oid = relnamespace
                 where relname = 'migration' and nspname = btrim('${schema}', '"')) as there`,
)

export const readLedger = statement<{ version: number; name: string; checksum: string; requires: number }>(
  'forge_read_ledger',
  (schema) => `select version, name, checksum, requires from ${schema}.migration order by version`,
)

/** One migrator at a time for a schema; released with the transaction, also by a crash. */
export const lockMigrations = statement(
  'forge_lock_migrations',
  (schema) => `select pg_advisory_xact_lock(hashtextextended('forge:migrate:${schema}', 0))`,
)

export const createLedger = statement(
  'forge_create_ledger',
  (schema) => `
  -- Not IF NOT EXISTS: that wants the right to make schemas also where the owner made this one.
  do $$ begin
    if to_regnamespace('${schema}') is null then create schema ${schema}; end if;
  end $$;
  create table if not exists ${schema}.migration (
    version    int primary key,
    name       text not null,
    checksum   text not null,
    -- The lowest version of the code (its newest migration) that may work with the schema from here on.
    requires   int not null,
    applied_at timestamptz not null default now()
  );`,
)

/** Unqualified names in a migration mean the chosen schema; functions keep this path by SET … FROM CURRENT. */
export const useSchema = statement(
  'forge_use_schema',
  (schema) => `set local search_path to ${schema}, pg_temp`,
)

export const recordMigration = statement(
  'forge_record_migration',
  (schema) => `insert into ${schema}.migration (version, name, checksum, requires) values ($1, $2, $3, $4)`,
)

/** What the doctor asks of the role that forge runs as. */
export const rolePrivileges = statement<{
  role: string
  superuser: boolean
  usage: boolean
  create: boolean
}>(
  'forge_role_privileges',
  (schema) => `
  select current_user::text as role,
         (select rolsuper from pg_roles where rolname = current_user) as superuser,
         coalesce(has_schema_privilege(to_regnamespace('${schema}')::oid, 'usage'), false) as usage,
         has_database_privilege(current_database(), 'create') as create`,
)

/**
 * What a runtime role lacks in the schema, by table and function: the ledger it only reads, every other table it reads
 * and writes, and the functions that run as their owner it calls. Partitions are reached through their parent.
 */
export const grantGaps = statement<{ object: string; missing: string[] }>(
  'forge_grant_gaps',
  (schema) => `
  select object, array_agg(privilege order by privilege) as missing
  from (
    select c.relname::text as object, privilege
    from pg_class c cross join unnest(array['select', 'insert', 'update', 'delete']) as privilege
    where c.relnamespace = to_regnamespace('${schema}')::oid and c.relkind in ('r', 'p') and not c.relispartition
      and (privilege = 'select' or c.relname <> 'migration') and not has_table_privilege(c.oid, privilege)
    union all
    select p.oid::regprocedure::text, 'execute'
    from pg_proc p
    where p.pronamespace = to_regnamespace('${schema}')::oid and p.prosecdef
      and not has_function_privilege(p.oid, 'execute')
  ) as gaps
  group by object order by object`,
)

/** How many connections there are and may be: on the server, of this role, to this database; -1 is "no limit". */
export const connectionRoom = statement<{
  max: number
  reserved: number
  used: number
  role_max: number
  role_used: number
  database_max: number
  database_used: number
}>(
  'forge_connection_room',
  () => `
  select current_setting('max_connections')::int as max,
         current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true), '0')::int as reserved,
         (select coalesce(sum(numbackends), 0) from pg_stat_database)::int as used,
         (select rolconnlimit from pg_roles where rolname = current_user) as role_max,
         (select count(*) from pg_stat_activity where usename = current_user)::int as role_used,
         (select datconnlimit from pg_database where datname = current_database()) as database_max,
         (select numbackends from pg_stat_database where datname = current_database()) as database_used`,
)

/**
 * The oldest open transaction of this database: while it lives, nothing that was deleted since can be vacuumed, and
 * queues grow slow. Of other roles it is seen only by members of pg_read_all_stats.
 */
export const oldestTransaction = statement<{
  who: string
  state: string
  age_ms: number
  /** Its last statement, shortened; null where this role may not see it. */
  query: string | null
}>(
  'forge_oldest_transaction',
  () => `
  select who, state, query, (extract(epoch from clock_timestamp() - since) * 1000)::float8 as age_ms
  from (
    select 'process ' || pid || ' (' || coalesce(usename, '?') || ', ' || coalesce(application_name, '') || ')' as who,
           coalesce(state, '?') as state, xact_start as since,
           nullif(left(regexp_replace(query, '\\s+', ' ', 'g'), 200), '<insufficient privilege>') as query
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
      and (backend_xmin is not null or backend_xid is not null)
    union all
    select 'prepared transaction ' || gid, 'prepared', prepared, null from pg_prepared_xacts where database = current_database()
  ) as open order by since limit 1`,
)

/** Tables of this schema ($1) in which vacuum falls behind, and large indexes that nobody has used, the worst first. */
export const storageHints = statement<{
  what: 'dead rows' | 'unused index'
  name: string
  dead: number
  live: number
  bytes: number
}>(
  'forge_storage_hints',
  () => `
  select * from (
    select 'dead rows' as what, relname as name, n_dead_tup::float8 as dead, n_live_tup::float8 as live,
           pg_table_size(relid)::float8 as bytes
    from pg_stat_user_tables where schemaname = $1 and n_dead_tup > 100000 and n_dead_tup > 2 * n_live_tup
    union all
    select 'unused index', s.indexrelname, 0, 0, pg_relation_size(s.indexrelid)::float8
    from pg_stat_user_indexes as s join pg_index as i using (indexrelid)
    where s.schemaname = $1 and s.idx_scan = 0 and not i.indisunique and pg_relation_size(s.indexrelid) > 50000000
  ) as hints order by bytes desc limit 5`,
)
