import { openCluster } from '../cluster/index.js'
import { countQueues, type JobCounts, jobStates, openJobs } from '../jobs/index.js'
import { type Answer, exits } from './answer.js'
import { nodesText } from './cluster.js'
import { columns } from './output.js'
import { answerPending, readSchema } from './pending.js'
import type { Station } from './station.js'

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
  const nodes = await openCluster(station.runtime).nodes()
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
    document: { ...facts, nodes, jobs, queues },
  }
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
