import { listNodes, type NodeRow } from '../cluster/index.js'
import { codeVersion, migrationStatus } from '../database/index.js'
import { countQueues, type JobCounts, jobStates, openJobs } from '../jobs/index.js'
import { type Answer, exits } from './answer.js'
import { columns } from './output.js'
import type { Station } from './station.js'

interface SchemaFacts {
  readonly schema: string
  readonly version: number
  /** The newest migration that this command carries. */
  readonly codeVersion: number
  readonly pending: readonly string[]
}

interface QueueCount {
  readonly queue: string
  readonly available: number
  readonly running: number
  readonly waiting: number
}

/** Counts beyond this are not made exactly. */
const countMax = 10_000

/** What is there. While migrations are pending only that is said: the tables may not be those of this version. */
export async function statusCommand(station: Station): Promise<Answer> {
  const { db } = station.runtime
  const facts = await readSchema(station)
  if (facts.pending.length > 0) return answerPending(facts)
  const nodes = await db.reader.run(listNodes)
  const jobs = await openJobs(station.runtime, { completedMs: 0, discardedMs: 0 }).counts()
  const queues = await db.reader.run(countQueues, [countMax])
  return {
    exit: exits.ok,
    text: [
      `schema ${facts.schema}: version ${facts.version}`,
      nodesText(nodes),
      jobsText(jobs),
      queuesText(queues),
    ].join('\n\n'),
    document: { ...facts, nodes: nodes.map(nodeDocument), jobs, queues },
  }
}

/** What is said instead of anything else while migrations are pending; null: none is. */
export async function pendingAnswer(station: Station): Promise<Answer | null> {
  const facts = await readSchema(station)
  return facts.pending.length > 0 ? answerPending(facts) : null
}

async function readSchema({ runtime }: Station): Promise<SchemaFacts> {
  const { db, clock, log, config } = runtime
  const given = { source: db.source, schema: db.schema, clock, logger: log, waitMs: 0, checksums: false }
  const { version, pending } = await migrationStatus(given)
  return { schema: config.schema, version, codeVersion, pending }
}

function answerPending(facts: SchemaFacts): Answer {
  return { exit: exits.todo, text: pendingText(facts), document: { ...facts } }
}

function pendingText({ schema, version, pending }: SchemaFacts): string {
  const state = version === 0 ? 'is not migrated yet' : `is at version ${version}`
  return `schema ${schema} ${state}; pending: ${pending.join(', ')}\nRun forge migrate, or start a node with migrate: 'auto'.`
}

function nodesText(nodes: readonly NodeRow[]): string {
  if (nodes.length === 0) return 'no nodes'
  const rows = nodes.map((node) => [
    node.id,
    node.host,
    String(node.pid),
    node.state,
    node.roles.join(', '),
    node.seen_at.toISOString(),
  ])
  return columns([['node', 'host', 'pid', 'state', 'roles', 'seen'], ...rows])
}

function jobsText(counts: JobCounts): string {
  const rows = jobStates.map((state) => [
    state,
    `${counts.estimated.includes(state) ? 'over ' : ''}${counts[state]}`,
  ])
  return columns([['jobs', ''], ...rows])
}

function queuesText(queues: readonly QueueCount[]): string {
  if (queues.length === 0) return 'no queues'
  const rows = queues.map(({ queue, available, running, waiting }) =>
    [queue, available, running, waiting].map(String),
  )
  return columns([['queue', 'available', 'running', 'waiting'], ...rows])
}

function nodeDocument(node: NodeRow): Record<string, unknown> {
  const { id, host, pid, version, state, roles, capabilities } = node
  const times = { startedAt: node.started_at.toISOString(), seenAt: node.seen_at.toISOString() }
  return { id, host, pid, version, state, roles, capabilities, ...times }
}
