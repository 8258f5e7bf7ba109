import { statement } from '../database/index.js'
import type { Lead } from './leads.js'
import type { NodeLoad, NodeServes } from './load.js'

/** Every statement on the tables of this room: node, leader, leader_term. */

/** Settings of the pulse thread's own connection, against limits that the role may carry. */
export const pulseSettings = statement(
  'forge_pulse_settings',
  () => `
  select set_config('statement_timeout', '5000', false), set_config('lock_timeout', '2000', false),
         set_config('default_transaction_isolation', 'read committed', false)`,
)

/** Joins, or is reborn under a new epoch after its lease was declared dead. */
export const joinNode = statement(
  'forge_join_node',
  (s) => `
  insert into ${s}.node as node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
  values ($1, $2, $9, $3, $4, $5, $6, $7, clock_timestamp() + $8 * interval '1 ms')
  on conflict (id) do update
     set epoch = excluded.epoch, state = case when node.drains then 'draining' else excluded.state end, lease_until = excluded.lease_until,
         seen_at = clock_timestamp(), died_at = clock_timestamp()`,
)

/**
 * The pulse: renew the own lease, declare expired ones dead, and say whether somebody died within the last minute.
 * $4 is false for a node that has not been in contact for a whole lease: after an outage of PostgreSQL every lease
 * has expired, and whoever comes back first must not bury the others before they could renew. A lease that is
 * expired but not declared dead can be renewed; both are one guarded row update, so only one of them wins.
 * The terms go along: $5 the roles that this node would lead, $6 whether locks can be trusted, $7 length of a term in ms.
 * So does what is new of its load, $8, and of what it serves, $9.
 */
export interface Beaten {
  readonly renewed: number
  readonly expired: number
  readonly deaths: boolean
  /** Somebody asked this node to take nothing new. */
  readonly draining: boolean
  readonly leads: readonly Lead[] | null
  /** The clock of the database, in ms since 1970. */
  readonly wall_ms: number
}

export const beat = statement<Beaten>(
  'forge_beat',
  (s) => `
  with renewed as (
    update ${s}.node
       set lease_until = clock_timestamp() + $3 * interval '1 ms', seen_at = clock_timestamp(),
           load = coalesce($8::jsonb, load), serves = coalesce($9::jsonb, serves)
     where id = $1 and epoch = $2 and state <> 'dead'
    returning 1
  ), expired as (
    update ${s}.node
       set state = 'dead', died_at = clock_timestamp()
     where $4::boolean and state <> 'dead' and lease_until < clock_timestamp()
       and id = any (array(
             select id from ${s}.node
              where state <> 'dead' and lease_until < clock_timestamp() and id <> $1
                for update skip locked))
    returning 1
  )
  select (select count(*) from renewed)::int as renewed,
         (select count(*) from expired)::int as expired,
         exists (select 1 from ${s}.node where died_at > clock_timestamp() - interval '60 s') as deaths,
         exists (select 1 from ${s}.node where id = $1 and state = 'draining') as draining,
         (extract(epoch from clock_timestamp()) * 1000)::float8 as wall_ms,
         case when cardinality($5::text[]) > 0 and exists (select from renewed)
              then (select coalesce(json_agg(l), '[]') from ${s}.lead($1, $2, $5, $6::boolean, $7::float8) as l) end as leads`,
)

/** Gives roles up: $1 node, $2 epoch, $3 roles. On the connection of the pulse, which may hold their locks. */
export const resign = statement('forge_resign', (s) => `select ${s}.resign($1, $2, $3::text[])`)

export interface LeaderRow {
  readonly role: string
  readonly n: number
  readonly term: string
  readonly node: string
  readonly host: string
  readonly pid: number
  readonly locked: boolean
  readonly began_at: Date
}

/** Who leads now; $1 a role, or null for all. */
export const listLeaders = statement<LeaderRow>(
  'forge_list_leaders',
  (s) => `
  select l.role, l.n::float8 as n, l.term, l.node, t.host, t.pid, l.locked, l.began_at
  from ${s}.leader l join ${s}.leader_term t on t.role = l.role and t.n = l.n
  where l.expires_at > clock_timestamp() and ($1::text is null or l.role = $1)
  order by l.role limit 1000`,
)

export interface TermRow {
  readonly n: number
  readonly term: string
  readonly node: string
  readonly host: string
  readonly pid: number
  readonly began_at: Date
  readonly ended_at: Date | null
  readonly ended: 'resigned' | 'expired' | 'unlocked' | null
}

/** The terms of a role ($1), newest first, $2 at most. */
export const listTerms = statement<TermRow>(
  'forge_list_terms',
  (s) => `
  select n::float8 as n, term, node, host, pid, began_at, ended_at, ended
  from ${s}.leader_term where role = $1 order by role, n desc limit $2`,
)

/**
 * A condition for other rooms' statements: the lease of this node and epoch (two SQL expressions) is in force. Rows
 * that are dead, gone or under another epoch do not count, whatever the node itself believes.
 */
export function liveLease(schema: string, node: string, epoch: string): string {
  return `exists (select 1 from ${schema}.node as lease where lease.id = ${node} and lease.epoch = ${epoch}
                  and lease.state <> 'dead' and lease.lease_until > clock_timestamp())`
}

/** The same for work that is already claimed: an expired lease that nobody declared dead can still be renewed. */
export function undeadLease(schema: string, node: string, epoch: string): string {
  return `exists (select 1 from ${schema}.node as lease where lease.id = ${node} and lease.epoch = ${epoch}
                  and lease.state <> 'dead')`
}

/** Somebody of this id has joined, and its row has not been forgotten. `node` is an SQL expression. */
export function knownNode(schema: string, node: string): string {
  return `exists (select 1 from ${schema}.node as known where known.id = ${node})`
}

export const markDraining = statement(
  'forge_mark_draining',
  (s) =>
    `update ${s}.node set state = 'draining' where id = $1 and epoch = $2 and state in ('joining', 'active')`,
)

/** All of its services run. */
export const markActive = statement(
  'forge_mark_active',
  (s) => `update ${s}.node set state = 'active' where id = $1 and epoch = $2 and state = 'joining'`,
)

/** Asks a node ($1) to take nothing new; no row when there is no such node, or it is dead. */
export const askDrain = statement<{ id: string }>(
  'forge_ask_drain',
  (s) => `
  with before as (
    select id from ${s}.node where id = $1::uuid and state <> 'dead' and lease_until > clock_timestamp() for update
  ), asked as (
    update ${s}.node as node set state = 'draining', drains = true from before where node.id = before.id
  )
  select id from before`,
)

/** A clean goodbye: what still runs under the epoch has no lease from here on, so rescue would find it. */
export const leaveNode = statement(
  'forge_leave_node',
  (s) => `delete from ${s}.node where id = $1 and epoch = $2`,
)

export interface NodeRow {
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly version: string
  readonly state: 'joining' | 'active' | 'draining' | 'dead'
  readonly roles: readonly string[]
  readonly capabilities: readonly string[]
  readonly started_at: Date
  readonly seen_at: Date
  readonly load: NodeLoad | null
  readonly serves: NodeServes | null
}

/** For other rooms' statements: the nodes as they are now, by the database's clock. Their `state` counts an expired lease. */
export function nodesNow(schema: string): string {
  return `(select id, host, pid, roles, capabilities, case when lease_until < clock_timestamp() then 'dead' else state end as state
           from ${schema}.node)`
}

export const listNodes = statement<NodeRow>(
  'forge_list_nodes',
  (s) => `
  select id, host, pid, version, case when lease_until < clock_timestamp() then 'dead' else state end as state,
         roles, capabilities, started_at, seen_at, load, serves
  from ${s}.node order by state = 'dead' or lease_until < clock_timestamp(), started_at desc limit 200`,
)

/** Terms that ended more than 30 days ago; the last of each role stays, since the next one goes on from it. */
export const forgetTerms = statement(
  'forge_forget_terms',
  (s) => `
  delete from ${s}.leader_term as past where ended_at < clock_timestamp() - interval '30 days'
     and n < (select n from ${s}.leader where leader.role = past.role)`,
)

/** Rows of nodes that died more than an hour ago; until then people want to see them. */
export const forgetDead = statement(
  'forge_forget_dead',
  (s) => `delete from ${s}.node where state = 'dead' and died_at < clock_timestamp() - interval '1 hour'`,
)
