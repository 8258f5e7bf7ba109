import { type ClusterNode, type Leader, openCluster } from '../cluster/index.js'
import { isForgeError } from '../kernel/index.js'
import { type Answer, exits } from './answer.js'
import { columns } from './output.js'
import type { Station } from './station.js'
import { pendingAnswer } from './pending.js'
import { UsageError } from './usage.js'

/** The processes that are there, and those that died within the last hour. */
export async function nodesCommand(station: Station): Promise<Answer> {
  const pending = await pendingAnswer(station)
  if (pending) return pending
  const nodes = await openCluster(station.runtime).nodes()
  return { exit: exits.ok, text: nodesText(nodes), document: { nodes } }
}

/** Who leads what. */
export async function leadersCommand(station: Station): Promise<Answer> {
  const pending = await pendingAnswer(station)
  if (pending) return pending
  const leaders = await openCluster(station.runtime).leaders()
  return { exit: exits.ok, text: leadersText(leaders), document: { leaders } }
}

/** Asks a node to take nothing new. */
export async function drainCommand(station: Station, id: string): Promise<Answer> {
  const pending = await pendingAnswer(station)
  if (pending) return pending
  try {
    await openCluster(station.runtime).drain(id)
  } catch (error) {
    if (isForgeError(error, 'FORGE_OPTION_INVALID'))
      throw new UsageError('drain takes the id of one node; forge nodes lists them.')
    if (!isForgeError(error, 'FORGE_NODE_UNKNOWN')) throw error
    return {
      exit: exits.todo,
      text: `no living node ${id}; forge nodes lists them`,
      document: { drained: null },
    }
  }
  // The hint that tells the node still has to leave.
  await station.signals.stop()
  return { exit: exits.ok, text: `node ${id} takes nothing new from now on`, document: { drained: id } }
}

export function nodesText(nodes: readonly ClusterNode[]): string {
  if (nodes.length === 0) return 'no nodes'
  const rows = nodes.map(({ id, host, pid, state, roles, seenAt }) => [
    id,
    host,
    String(pid),
    state,
    roles.join(', '),
    seenAt.toISOString(),
  ])
  return columns([['node', 'host', 'pid', 'state', 'roles', 'seen'], ...rows])
}

function leadersText(leaders: readonly Leader[]): string {
  if (leaders.length === 0) return 'nobody leads anything'
  const rows = leaders.map(({ role, node, host, pid, term, locked, since }) => [
    role,
    node,
    host,
    String(pid),
    String(term.n),
    locked ? 'lock and term' : 'term',
    since.toISOString(),
  ])
  return columns([['role', 'node', 'host', 'pid', 'term', 'held by', 'since'], ...rows])
}
