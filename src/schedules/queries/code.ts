import { statement } from '../../database/index.js'

/** What code defines: see `schedule_version` and `schedule_offer`. */

/** What the code of a node ($1) defines: names ($2), hashes ($3) and specs ($4, a JSON list). */
export const offerSchedules = statement(
  'forge_offer_schedules',
  (s) => `
  with known as (
    insert into ${s}.schedule_version as v (name, hash, spec)
    select each.name, each.hash, spec.value
    from unnest($2::text[], $3::text[]) with ordinality as each(name, hash, n)
    join jsonb_array_elements($4::jsonb) with ordinality as spec(value, n) using (n)
    order by each.name, each.hash
    on conflict (name, hash) do update set used_at = clock_timestamp()
      where v.used_at < clock_timestamp() - interval '1 day'
  ), gone as (
    delete from ${s}.schedule_offer as o where node <> $1 and not exists (select from ${s}.node where node.id = o.node)
  )
  insert into ${s}.schedule_offer (node, names, hashes) values ($1, $2, $3)
  on conflict (node) do update set names = excluded.names, hashes = excluded.hashes`,
)

/** A node ($1) that stops defines nothing any more. */
export const withdrawOffer = statement(
  'forge_withdraw_schedules',
  (s) => `delete from ${s}.schedule_offer where node = $1`,
)

export interface ReconciledRow {
  readonly name: string
  readonly event: 'created' | 'changed' | 'renamed' | 'removed' | 'returned' | 'conflict'
  readonly detail: string | null
}

export const reconcile = statement<ReconciledRow>(
  'forge_reconcile_schedules',
  (s) => `select name, event, detail from ${s}.schedule_reconcile()`,
)

/** Which nodes offer schedules, as one value that changes when they do. */
export const offersNow = statement<{ seen: string }>(
  'forge_schedule_offers_now',
  (s) => `
  select coalesce(string_agg(o.node::text || o.xmin::text, ',' order by o.node), '')
         || exists (select from ${s}.schedule where orphaned_at is not null and removed_at is null or yielded and waiting > 0)::text
           as seen
  from ${s}.schedule_offer as o join ${s}.node on node.id = o.node and node.state <> 'dead'`,
)

/** Definitions that no living node has had for $1 ms. */
export const forgetVersions = statement(
  'forge_forget_schedule_versions',
  (s) => `
  with offered as (
    select distinct each.name, each.hash
    from ${s}.schedule_offer as o join ${s}.node on node.id = o.node and node.state <> 'dead'
    cross join lateral unnest(o.names, o.hashes) as each(name, hash)
  ), used as (
    update ${s}.schedule_version as v set used_at = clock_timestamp() from offered
    where v.name = offered.name and v.hash = offered.hash and v.used_at < clock_timestamp() - interval '1 day'
  )
  delete from ${s}.schedule_version as v
  where v.used_at < clock_timestamp() - $1 * interval '1 ms'
    and not exists (select from offered where offered.name = v.name and offered.hash = v.hash)`,
)
