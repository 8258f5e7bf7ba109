import { news } from '../kernel/index.js'

/** The lease of this node was declared dead: whatever ran under `epoch` belongs to others now. */
export const leaseLost = news<{ readonly epoch: string }>('cluster.lease.lost')

/** This node could not renew in time and no longer trusts its lease; `trusted` tells when it does again. */
export const contactChanged = news<{ readonly trusted: boolean }>('cluster.contact.changed')

/** Somebody asked this node to take nothing new. */
export const drainAsked = news<Record<string, never>>('cluster.drain.asked')

/** A transaction has been open for long: what was deleted since cannot be cleaned up. `query` is its last statement. */
export const horizonHeld = news<{
  readonly who: string
  readonly ageMs: number
  readonly query: string | null
}>('cluster.horizon.held')

/** Somebody's lease expired, or did within the last minute: there may be work to rescue. */
export const deathsSeen = news<{ readonly expired: number }>('cluster.deaths.seen')
