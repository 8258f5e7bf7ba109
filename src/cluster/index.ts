/**
 * cluster: which processes are alive. Each has one row with a lease, renewed by a thread (`pulse-thread.ts`) and
 * judged by the database clock alone.
 *
 * States of a node: active → draining → gone, or → dead when its lease ran out and somebody saw it.
 * When PostgreSQL is away, every lease runs out and nobody is declared dead: only a node that has been in contact
 * for a whole lease may bury others, and whoever returns renews first. A node that cannot renew distrusts its own
 * lease before it ends and aborts its handlers; one that was declared dead takes a new epoch.
 *
 * Leadership (`leadership.ts`, `campaign.ts`): a role has one standing term, a row that expires (7 s, renewed every 2 s
 * with the lease, trusted for 5 s), and where it can an advisory lock on the connection of the pulse, so that others
 * follow at once when that breaks. Nothing that must be right depends on it: what only a leader may write names its term.
 */
export type { Leading, LeaderPost, LeaderWork, Term } from './campaign.js'
export {
  type Daemon,
  type DaemonContext,
  type DaemonOptions,
  DaemonRegistry,
  DaemonService,
  readDaemon,
} from './daemons.js'
export { type Cluster, type ClusterNode, type Leader, openCluster, type PastTerm } from './face.js'
export { type Chore, Maintenance } from './maintenance.js'
export type { Gauges, NodeLoad, NodeServes } from './load.js'
export { contactChanged, deathsSeen, drainAsked, leaseLost } from './news.js'
export { clusterOptions } from './options.js'
export {
  knownNode,
  listLeaders,
  listNodes,
  liveLease,
  nodesNow,
  type NodeRow,
  undeadLease,
} from './queries.js'
export { ClusterService, type Membership } from './service.js'
