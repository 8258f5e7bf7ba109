import { type Chore, type ClusterService, deathsSeen, leaseLost, type LeaderPost } from '../cluster/index.js'
import type { JobsService } from '../jobs/index.js'
import { Bell, codeOf, type Service, sleep } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { CodeSchedule, ScheduleRegistry } from './define.js'
import type { Crons } from './face.js'
import {
  forgetVersions,
  offerSchedules,
  offersNow,
  reconcile,
  type ReconciledRow,
  withdrawOffer,
} from './queries/code.js'
import { type FiredRow, pruneTicks } from './queries/ticks.js'
import { changedTopic, openCrons } from './stored.js'
import { Ticker } from './ticker.js'

export interface SchedulesParts {
  readonly runtime: Runtime
  readonly cluster: ClusterService
  readonly jobs: JobsService
  readonly registry: ScheduleRegistry
  /** False on nodes without the role: they define and change schedules, and others fire them. */
  readonly leads: boolean
}

/** Topic of the signals port: nodes define nothing any more; keys are their ids. */
const offersTopic = 'schedules.offers'
/** The leader looks so often whether the code of the nodes has changed: hints may be lost, and nodes go without a word. */
const reconcileMs = 60_000
const pruneMs = 600_000
const keptMs = 30 * 86_400_000
const forgetMs = 3_600_000
const versionKeptMs = 90 * 86_400_000
const prunedMax = 5_000
const againMs = 1_000
const laterMs = 5_000
/** Deadlock, and a lock that others hold for too long. */
const passing = new Set(['40P01', '55P03', 'FORGE_LOCK_TIMEOUT'])

/** Everything of this room that lives in one process. */
export class SchedulesService implements Service {
  readonly name = 'schedules'
  readonly crons: Crons
  readonly #parts: SchedulesParts
  readonly #ticker: Ticker
  readonly #offs: (() => void)[] = []
  #post: LeaderPost | null = null
  #stop = new AbortController()
  /** What was written of the code of this process. */
  #offered: readonly CodeSchedule[] = []
  #offering: Promise<void> = Promise.resolve()
  #offersSeen = ''
  readonly #houseBell = new Bell()

  constructor(parts: SchedulesParts) {
    this.#parts = parts
    const { runtime, jobs } = parts
    const made = (ids: readonly string[]): void => void jobs.tellMade(ids)
    this.crons = openCrons({ runtime, made, check: (job, input) => jobs.checkInput(job, input) })
    this.#ticker = new Ticker(runtime, (rows) => this.#fired(rows))
  }

  async start(): Promise<void> {
    const { runtime, registry, cluster, leads } = this.#parts
    // First of all: what is defined meanwhile is offered next.
    this.#offs.push(registry.onChange(() => this.#offerSoon()))
    await this.#offer().catch((error: unknown) => {
      // Somebody else changes schedules at this moment.
      if (!passing.has(codeOf(error))) throw error
      this.#offerSoon()
    })
    this.#offs.push(runtime.news.on(leaseLost, () => this.#offerSoon(true)))
    if (!leads) return
    this.#offs.push(
      runtime.signals.subscribe(changedTopic, () => this.#onChanged()),
      // What only they defined has nobody now.
      runtime.signals.subscribe(offersTopic, () => this.#houseBell.ring()),
      runtime.news.on(deathsSeen, () => this.#houseBell.ring()),
    )
    this.#post = cluster.lead('scheduler', async ({ term, signal }) => {
      await Promise.all([this.#ticker.lead({ term, signal }), this.#keepHouse(signal)])
    })
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    for (const off of this.#offs) off()
    await this.#post?.stop()
    await this.#offering
    await this.#withdraw()
  }

  /** So that a schedule which only this node defined need not wait until somebody misses it. */
  async #withdraw(): Promise<void> {
    const { db, nodeId, signals } = this.#parts.runtime
    if (this.#offered.length === 0) return
    await db.control.run(withdrawOffer, [nodeId]).catch(() => {})
    signals.hint(offersTopic, nodeId)
  }

  /** For the maintenance leader. */
  get chores(): readonly Chore[] {
    const { control } = this.#parts.runtime.db
    return [
      { name: 'ticks', everyMs: pruneMs, work: () => this.#prune() },
      {
        name: 'schedule versions',
        everyMs: forgetMs,
        work: () => control.run(forgetVersions, [versionKeptMs]),
      },
    ]
  }

  #onChanged(): void {
    // One that was deleted may have kept a definition of code out.
    this.#offersSeen = ''
    this.#ticker.wake()
  }

  /** What the leader does beside firing. */
  async #keepHouse(signal: AbortSignal): Promise<void> {
    const { clock, faults } = this.#parts.runtime
    this.#offersSeen = ''
    while (!signal.aborted) {
      const done = await faults.attempt('the look at what code defines', () => this.#reconcileIfChanged())
      await this.#houseBell.wait(clock, done ? reconcileMs : laterMs, signal)
    }
  }

  async #reconcileIfChanged(): Promise<boolean> {
    const [row] = await this.#parts.runtime.db.control.run(offersNow)
    if (!row || row.seen === this.#offersSeen) return true
    await this.#reconcile()
    // While one waits for its removal every look is needed.
    this.#offersSeen = row.seen.endsWith('true') ? '' : row.seen
    return true
  }

  async #prune(): Promise<void> {
    let n = prunedMax
    while (n === prunedMax && !this.#stop.signal.aborted) {
      const [row] = await this.#parts.runtime.db.control.run(pruneTicks, [keptMs, prunedMax])
      n = row?.n ?? 0
    }
  }

  #offerSoon(anew = false): void {
    if (anew) this.#offered = []
    const { clock, faults } = this.#parts.runtime
    this.#offering = this.#offering.then(async () => {
      while (!this.#stop.signal.aborted) {
        if (await faults.attempt('the writing of schedules that code defines', () => this.#offer())) return
        await sleep(clock, againMs, this.#stop.signal)
      }
    })
  }

  /** Says what the code of this process defines, where that is new. Gives true. */
  async #offer(): Promise<boolean> {
    const { runtime, registry } = this.#parts
    const schedules = registry.all()
    const same =
      schedules.length === this.#offered.length && schedules.every((one, at) => one === this.#offered[at])
    if (same) return true
    await runtime.db.control.run(offerSchedules, [
      runtime.nodeId,
      schedules.map(({ name }) => name),
      schedules.map(({ hash }) => hash),
      JSON.stringify(schedules.map(({ spec }) => spec)),
    ])
    await this.#reconcile()
    this.#offered = schedules
    return true
  }

  async #reconcile(): Promise<void> {
    const { db, signals, log } = this.#parts.runtime
    const rows = await db.control.run(reconcile)
    for (const row of rows) log[row.event === 'conflict' ? 'warn' : 'info'](sentenceOf(row))
    // A conflict stands as it stood.
    const news = rows.filter(({ event }) => event !== 'conflict')
    if (news.length > 0) signals.hint(changedTopic, news.length === 1 ? (news[0]?.name ?? '') : 'many')
  }

  #fired(rows: readonly FiredRow[]): void {
    void this.#parts.jobs.tellMade(rows.flatMap(({ job }) => (job === null ? [] : [job])))
  }
}

function sentenceOf({ name, event, detail }: ReconciledRow): string {
  const said = {
    created: 'is new',
    changed: 'has changed',
    renamed: `follows '${detail ?? ''}', which said the same and which no running code defines any more`,
    removed: 'is removed: no running code defines it any more',
    returned: 'is back',
    conflict:
      'stands as it was made at run time; what code says of this name does not count until that is deleted',
  }[event]
  return `forge: schedule '${name}' ${said}`
}
