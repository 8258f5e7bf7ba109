/**
 * cluster: which processes are alive. Each has one row with a lease, renewed by a thread (`pulse-thread.ts`) and
 * judged by the database clock alone.
 *
 * States of a node: active → draining → gone, or → dead when its lease ran out and somebody saw it.
 * When PostgreSQL is away, every lease runs out and nobody is declared dead: only a node that has been in contact
 * for a whole lease may bury others, and whoever returns renews first. A node that cannot renew distrusts its own
 * lease before it ends and aborts its handlers; one that was declared dead takes a new epoch.
 */
export { contactChanged, deathsSeen, leaseLost } from './news.js'
export { clusterOptions } from './options.js'
export { knownNode, listNodes, liveLease, nodesNow, type NodeRow, undeadLease } from './queries.js'
export { ClusterService, type Membership } from './service.js'
