import type { Membership } from '../cluster/index.js'
import type { Session } from '../database/index.js'
import { claimJobs, type ClaimedRow } from './queries/claim.js'

/** A lane that this process serves, and the number of its queue within one claim. */
export interface ServedLane {
  readonly id: number
  readonly queue: string
  readonly name: string
}

/** Claims work for the free slots of each queue; most due first. The statement itself requires the live lease. */
export async function claim(
  session: Session,
  membership: Membership,
  want: {
    readonly lanes: readonly ServedLane[]
    readonly free: ReadonlyMap<string, number>
    /** Whether a job that lost its process before may be among them. */
    readonly suspects: boolean
  },
): Promise<ClaimedRow[]> {
  const queues = [...want.free.keys()]
  const lanes = want.lanes.filter((lane) => (want.free.get(lane.queue) ?? 0) > 0)
  if (lanes.length === 0) return []
  const rows = await session.run(claimJobs, [
    membership.nodeId,
    membership.epoch,
    lanes.map((lane) => lane.id),
    lanes.map((lane) => queues.indexOf(lane.queue)),
    lanes.map((lane) => want.free.get(lane.queue)),
    want.suspects,
  ])
  return rows.sort((a, b) => a.due_us - b.due_us || (a.id < b.id ? -1 : 1))
}
