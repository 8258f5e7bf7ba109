/* What is written of a job that goes to history. */

/** The day (UTC) on which what is kept for so long may go: rounded up, so never early. */
export const expiry = (keepMs: string): string =>
  `((clock_timestamp() + ${keepMs} * interval '1 ms') at time zone 'UTC')::date + 1`

const columns =
  'id, lane, priority, attempt, attempts_max, crashes, claims, run_at, created_at, claimed_at, token, node, input, gates, tags, parent, unique_key'

export const carried = (table: string, without: readonly string[] = []): string =>
  columns
    .split(', ')
    .filter((column) => !without.includes(column))
    .map((column) => (table ? `${table}.${column}` : column))
    .join(', ')
