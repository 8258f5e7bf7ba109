import { statement } from './statement.js'

/**
 * Settings of a connection of our own, and who answers, in one trip. Behind a pooler the backend that answers is not
 * the one the protocol named ($1), and then no session setting is made: it would leak to the pooler's next client.
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
                  set_config('default_transaction_isolation', 'read committed', false),
                  set_config('default_transaction_read_only', 'off', false),
                  set_config('client_min_messages', 'warning', false) ]
         end as settings`,
)

/** The same settings for one transaction: the only kind that is safe behind a transaction-mode pooler. */
export const openTransaction = statement(
  'forge_open_transaction',
  () => `
  select set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
         set_config('idle_in_transaction_session_timeout', $3, true)`,
)

export const backendPid = statement<{ pid: number }>(
  'forge_backend_pid',
  () => 'select pg_backend_pid() as pid',
)

export const begin = 'begin isolation level read committed read write'
export const beginPlain = 'begin'
export const commit = 'commit'
export const rollback = 'rollback'

/** A hint is an untrusted string of at most 7,999 bytes; pg_notify takes it as a bound value. */
export const notify = statement('forge_notify', () => 'select pg_notify($1, $2)')

export const databaseClock = statement<{ wall_ms: number }>(
  'forge_database_clock',
  () => `select extract(epoch from clock_timestamp())::float8 * 1000 as wall_ms`,
)

/** The ledger, read without a lock. No row when the schema or the table is not there yet. */
export const ledgerExists = statement<{ there: boolean }>(
  'forge_ledger_exists',
  (schema) => `select to_regclass('${schema}.migration') is not null as there`,
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
  create schema if not exists ${schema};
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
