import { hostname } from 'node:os'
import {
  type Cluster,
  type ClusterService,
  type LeaderPost,
  type LeaderWork,
  type NodeRow,
  openCluster,
} from './cluster/index.js'
import type { PostgresSignals, Tx, TransactionOptions } from './database/index.js'
import type { PageData } from './host/index.js'
import { type Job, type Jobs, jobStates, type JobsService, type Queues } from './jobs/index.js'
import type { Crons, SchedulesService } from './schedules/index.js'
import { asRecord, durationMs, type Duration, unknownOption } from './kernel/index.js'
import type { Role, Runtime } from './runtime/index.js'

/** One named check of `health()`. */
export interface HealthCheck {
  readonly name: string
  readonly ok: boolean
  readonly detail: string
}

export interface Health {
  /** The process answers: true as long as anything here runs. */
  readonly live: boolean
  /** This node can do its work now. */
  readonly ready: boolean
  readonly checks: readonly HealthCheck[]
}

/** This process in the cluster: what `attach` resolves to. */
export interface ForgeNode extends AsyncDisposable {
  /** A UUID of its own at every start. */
  readonly id: string
  readonly roles: readonly Role[]
  /** The host this node runs on. */
  readonly address: string
  readonly jobs: Jobs
  readonly queues: Queues
  readonly crons: Crons
  readonly cluster: Cluster
  /**
   * Runs `work` on one node of all that ask for `role`: on this one whenever it leads. Its signal aborts when the role is
   * lost; then another node begins, 10 s later at most, and at once when this one stops or dies with its connection. When
   * `work` returns, this node asks no more; when it throws, another node may lead, and this one asks again after a pause.
   * @throws ForgeError FORGE_OPTION_INVALID, FORGE_DUPLICATE_NAME (this node asks for it already), FORGE_STOPPED
   */
  whileLeading(role: string, work: LeaderWork): LeaderPost
  /**
   * BEGIN, `fn(tx)`, COMMIT on a client of your pool; ROLLBACK when `fn` throws. Jobs enqueued with this `tx` wake
   * workers right after the commit.
   * @throws ForgeError FORGE_COMMIT_UNKNOWN, FORGE_TX_FINISHED; whatever `fn` throws
   */
  transaction<T>(fn: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>
  health(): Promise<Health>
  /**
   * Stops claiming, lets running handlers finish for `timeout` (default: option stopTimeout), hands back what is
   * unfinished without using an attempt, and closes every connection of its own. Repeated calls join the first.
   */
  stop(options?: { readonly timeout?: Duration }): Promise<void>
}

/** What a node is made of. */
export interface NodeParts {
  readonly runtime: Runtime
  readonly version: string
  readonly signals: PostgresSignals
  readonly cluster: ClusterService
  readonly jobs: JobsService
  readonly schedules: SchedulesService
  readonly transaction: ForgeNode['transaction']
  readonly stop: (deadlineMs: number) => Promise<void>
}

export function createNode(parts: NodeParts): ForgeNode {
  const { runtime } = parts
  let stopping: Promise<void> | null = null
  const stop = async (options?: { readonly timeout?: Duration }): Promise<void> => {
    const ms = readTimeout(options) ?? runtime.config.stopTimeout
    return (stopping ??= parts.stop(ms))
  }
  return Object.freeze({
    id: runtime.nodeId,
    roles: runtime.config.roles,
    address: hostname(),
    jobs: parts.jobs.jobs,
    queues: parts.jobs.queues,
    crons: parts.schedules.crons,
    cluster: openCluster(runtime),
    whileLeading: (role: string, work: LeaderWork) => parts.cluster.whileLeading(role, work),
    transaction: parts.transaction,
    health: () => Promise.resolve(readHealth(parts)),
    stop,
    [Symbol.asyncDispose]: () => stop(),
  })
}

function readTimeout(options: unknown): number | undefined {
  const record = asRecord(options, 'The options of stop()')
  for (const key of Object.keys(record)) if (key !== 'timeout') throw unknownOption(key, ['timeout'])
  return record.timeout === undefined ? undefined : durationMs(record.timeout, 'timeout of stop()')
}

/** It can take new work. */
export const isReady = ({ cluster }: Pick<NodeParts, 'cluster'>): boolean =>
  cluster.trusted && !cluster.draining

/** What this process knows of itself; asks nobody, so that a probe is cheap and never hangs. */
function readHealth({
  cluster,
  signals,
  runtime,
  jobs,
}: Pick<NodeParts, 'cluster' | 'signals' | 'runtime' | 'jobs'>): Health {
  const { pooler } = runtime.db.source
  const fallback = cluster.pulseFallback
  const checks: HealthCheck[] = [
    {
      name: 'lease',
      ok: cluster.trusted,
      detail: cluster.trusted
        ? `epoch ${cluster.epoch.slice(0, 8)}`
        : 'not renewed in time; PostgreSQL may be away',
    },
    {
      name: 'drain',
      ok: !cluster.draining,
      detail: cluster.draining ? 'it was asked to take nothing new' : 'not asked for',
    },
    {
      name: 'listener',
      ok: signals.proven,
      detail: signals.proven ? 'hints arrive' : 'no hints; polling every second',
    },
    {
      name: 'clock',
      ok: cluster.clockOff === null,
      detail:
        cluster.clockOff === null ? 'within 2 s of the database' : `${cluster.clockOff} that of the database`,
    },
    { name: 'pulse', ok: fallback === null, detail: fallback ?? 'in a thread' },
    {
      name: 'connection',
      ok: pooler !== 'transaction',
      detail: pooler === 'none' ? 'direct' : `through a pooler in ${pooler} mode`,
    },
    {
      name: 'handlers',
      ok: jobs.debt === 0,
      detail: jobs.debt === 0 ? 'all settle' : `${jobs.debt} ignore their signal, and keep as many slots`,
    },
  ]
  // Without hints or the thread everything works, slower: only the lease decides.
  return { live: true, ready: isReady({ cluster }), checks }
}

/** The data of the status page; each part is bounded. */
export async function readPage(parts: Omit<NodeParts, 'stop'>): Promise<PageData> {
  const { runtime, cluster, jobs } = parts
  const [counts, queues, nodes, failures] = await Promise.all([
    jobs.jobs.counts(),
    jobs.queueCounts(),
    cluster.nodes(),
    jobs.jobs.failures(10),
  ])
  return {
    node: { id: runtime.nodeId, version: parts.version, roles: runtime.config.roles, running: jobs.running },
    checks: readHealth(parts).checks,
    nodes: nodes.map(toNodeRow),
    queues,
    counts: jobStates.map((state) => ({
      state,
      count: `${counts.estimated.includes(state) ? 'over ' : ''}${counts[state].toLocaleString('en')}`,
    })),
    failures: failures.map(toFailure),
  }
}

function toNodeRow(row: NodeRow): PageData['nodes'][number] {
  const { id, host, pid, state, roles } = row
  return { id, host, pid, state, roles, seen: row.seen_at.toISOString() }
}

function toFailure(job: Job): PageData['failures'][number] {
  const last = job.errors.at(-1)
  return {
    id: job.id,
    name: job.name,
    state: job.state,
    attempt: `${job.attempt} of ${job.attempts}`,
    message: (last?.message ?? job.reason ?? '').slice(0, 300),
    at: last?.at ?? job.createdAt.toISOString(),
  }
}
