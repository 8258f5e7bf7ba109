import { randomUUID } from 'node:crypto'

interface Queries {
  query(sql: string, values?: readonly unknown[]): Promise<unknown>
}

/** Who claimed, and what else is set of the jobs: columns of forge.job with values. */
export interface Claimant {
  readonly node?: string
  readonly epoch?: string
  /** How long ago; default 0. */
  readonly agoMs?: number
  readonly set?: Readonly<Record<string, unknown>>
}

/** As if a node had claimed these jobs in one claim: by default one that nobody ever heard of. Gives the claim's token. */
export async function markClaimed(
  database: Queries,
  ids: readonly string[],
  claimant: Claimant = {},
): Promise<string> {
  const { node = randomUUID(), epoch = randomUUID(), agoMs = 0, set = {} } = claimant
  const token = randomUUID()
  const columns = Object.keys(set).map((column, index) => `, ${column} = $${index + 6}`)
  await database.query(
    `with claim as (
       insert into forge.job_claim (token, node, epoch, ids, at)
       values ($1, $2, $3, $4, clock_timestamp() - $5 * interval '1 ms') returning token, node, epoch, ids, at)
     update forge.job set state = 3, stage = 2, token = claim.token, node = claim.node, epoch = claim.epoch, claimed_at = claim.at,
            attempt = 1, claims = 1 ${columns.join('')}
     from claim where id = any (claim.ids)`,
    [token, node, epoch, ids, agoMs, ...Object.values(set)],
  )
  return token
}
