import type { Runtime } from '../runtime/index.js'
import { ForgeError, invalidOption, isUuid } from '../kernel/index.js'
import { isRole } from './leadership.js'
import type { NodeLoad, NodeServes } from './load.js'
import {
  askDrain,
  type LeaderRow,
  listLeaders,
  listNodes,
  listTerms,
  type NodeRow,
  type TermRow,
} from './queries.js'

/** One process of the cluster. */
export interface ClusterNode {
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly version: string
  /** joining: its services are starting; dead: its lease is over. Such rows are kept for an hour. */
  readonly state: 'joining' | 'active' | 'draining' | 'dead'
  readonly roles: readonly string[]
  readonly capabilities: readonly string[]
  readonly startedAt: Date
  /** Its last renewal. */
  readonly seenAt: Date
  /** As of its last renewals; null: it has not said. */
  readonly load: NodeLoad | null
  /** Queues and jobs that it runs, 200 of each at most; null: it has not said. */
  readonly serves: NodeServes | null
}

/** Who leads a role now. */
export interface Leader {
  readonly role: string
  /** Id of the node. */
  readonly node: string
  readonly host: string
  readonly pid: number
  readonly term: { readonly id: string; readonly n: number }
  /** True: others follow as soon as its connection is gone; false: when its term is over (a pooler, or a lock that others hold). */
  readonly locked: boolean
  readonly since: Date
}

/** A term that was, or that stands. */
export interface PastTerm extends Omit<Leader, 'locked' | 'role'> {
  /** Null: nobody has followed yet. */
  readonly endedAt: Date | null
  /** resigned; expired: not renewed in time; unlocked: its connection was gone. */
  readonly ended: 'resigned' | 'expired' | 'unlocked' | null
}

/** The nodes of this schema, and who of them leads what. */
export interface Cluster {
  /** Id of this process. */
  readonly self: string
  /** Those that live first, then newest first, 200 at most. */
  nodes(): Promise<readonly ClusterNode[]>
  /** Null: nobody does now. */
  leader(role: string): Promise<Leader | null>
  leaders(): Promise<readonly Leader[]>
  /**
   * Asks a node (default: this one) to take nothing new: it claims no more jobs, gives back what has not started, leads
   * nothing, and is not ready any more. What runs there goes on. Resolves when that is written; the node follows at once, or
   * with its next renewal. There is no way back but a new start.
   * @throws ForgeError FORGE_NODE_UNKNOWN, FORGE_OPTION_INVALID
   */
  drain(id?: string): Promise<void>
  /** Newest first; `limit` 1 to 1,000, default 50. @throws ForgeError FORGE_OPTION_INVALID */
  terms(role: string, options?: { readonly limit?: number }): Promise<readonly PastTerm[]>
}

const limitMax = 1_000

/** Topic of the signals port; keys are ids of nodes that were asked to drain. */
export const drainTopic = 'cluster.drain'

/** For a node, or for a command that is none. */
export function openCluster({ db, nodeId, signals }: Pick<Runtime, 'db' | 'nodeId' | 'signals'>): Cluster {
  return Object.freeze({
    self: nodeId,
    nodes: async () => (await db.reader.run(listNodes)).map(toNode),
    leader: async (role: string) => {
      const [row] = isRole(role) ? await db.reader.run(listLeaders, [role]) : []
      return row ? toLeader(row) : null
    },
    leaders: async () => (await db.reader.run(listLeaders, [null])).map(toLeader),
    drain: async (id: string = nodeId) => {
      if (!isUuid(id)) throw invalidOption('The id of drain()', 'must be the id of a node')
      const rows = await db.control.run(askDrain, [id])
      if (rows.length === 0) throw new ForgeError('FORGE_NODE_UNKNOWN', `No node ${id}.`)
      signals.hint(drainTopic, id)
    },
    terms: async (role: string, options?: { readonly limit?: number }) => {
      const limit = options?.limit ?? 50
      if (!Number.isInteger(limit) || limit < 1 || limit > limitMax)
        throw invalidOption('Option limit of terms()', `must be a whole number from 1 to ${limitMax}`)
      return isRole(role) ? (await db.reader.run(listTerms, [role, limit])).map(toTerm) : []
    },
  })
}

function toNode({ started_at: startedAt, seen_at: seenAt, ...row }: NodeRow): ClusterNode {
  return { ...row, startedAt, seenAt }
}

function toLeader({ role, n, term, node, host, pid, locked, began_at: since }: LeaderRow): Leader {
  return { role, node, host, pid, term: { id: term, n }, locked, since }
}

function toTerm({ n, term, node, host, pid, began_at: since, ended_at: endedAt, ended }: TermRow): PastTerm {
  return { node, host, pid, term: { id: term, n }, since, endedAt, ended }
}
