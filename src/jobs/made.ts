import type { Runtime } from '../runtime/index.js'
import { announce } from './hints.js'
import { madeJobs } from './queries/enqueue.js'

/**
 * Jobs were made by SQL, and are committed: workers hear of those that are ready, or due later. Gives the gates at which others
 * wait, for the admission. What is not told is found by the next look of a node.
 */
export async function tellMade(
  { db, signals }: Pick<Runtime, 'db' | 'signals'>,
  ids: readonly string[],
): Promise<string[]> {
  if (ids.length === 0) return []
  const rows = await db.control.run(madeJobs, [ids])
  announce(signals, rows)
  return rows.flatMap(({ gate }) => gate ?? [])
}
