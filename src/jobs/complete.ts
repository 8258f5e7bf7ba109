import type { Session } from '../database/index.js'
import {
  codeOf,
  deferred,
  encodeForgiving,
  isConnectionError,
  isForgeError,
  messageOf,
  sleep,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { describeError, type FinalState, type Finish, type Keep, stateNumber } from './job.js'
import { resultLimits } from './options.js'
import { finishedByToken, finishJobs, putBackJobs } from './queries/finish.js'
import type { JobRun } from './run.js'

/** What became of a write: accepted, or refused because the claim is no longer the current one. */
export type Fate = 'written' | 'cancelled' | 'lost'

interface Entry {
  readonly run: JobRun
  readonly finish: Exclude<Finish, { kind: 'none' }>
  readonly settled: ReturnType<typeof deferred<Fate>>
  /** Set after a write whose answer never came: then "no row" may mean "already written". */
  doubted: boolean
  /** Set after the content itself was refused: only the bare fact is written. */
  bare: boolean
}

export interface FinisherContext {
  readonly runtime: Runtime
  readonly session: Session
  readonly keep: Keep
  /** Makes the partitions that a 23514 said are missing. */
  ensurePartitions(): Promise<void>
}

const batchMax = 1_000

/**
 * Writes the ends of jobs, many in one statement: whatever finishes while a write is under way goes with the next.
 * A write is repeated until PostgreSQL takes it or refuses it: a finished job must not run again for an outage.
 */
export class Finisher {
  readonly #context: FinisherContext
  #entries: Entry[] = []
  #writing = false
  readonly #abort = new AbortController()

  constructor(context: FinisherContext) {
    this.#context = context
  }

  /** Resolves when the outcome is durable, or is known to be refused. */
  write(run: JobRun, finish: Exclude<Finish, { kind: 'none' }>): Promise<Fate> {
    const entry: Entry = { run, finish, settled: deferred<Fate>(), doubted: false, bare: false }
    this.#entries.push(entry)
    void this.#drain()
    return entry.settled.promise
  }

  /** Gives up what PostgreSQL does not take; those jobs are rescued by the nodes that live. */
  abandon(): void {
    this.#abort.abort()
  }

  async #drain(): Promise<void> {
    if (this.#writing) return
    this.#writing = true
    while (this.#entries.length > 0) {
      const batch = this.#entries.splice(0, batchMax)
      await this.#persist(batch)
    }
    this.#writing = false
  }

  async #persist(batch: Entry[]): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.#writeBatch(batch)
      } catch (error) {
        if (this.#abort.signal.aborted) return batch.forEach((entry) => entry.settled.resolve('lost'))
        if (await this.#mend(error, batch)) return
        await sleep(this.#context.runtime.clock, Math.min(50 * 2 ** tries, 1_000), this.#abort.signal)
      }
    }
  }

  /** True when the batch was dealt with in another way; false: try the same again. */
  async #mend(error: unknown, batch: Entry[]): Promise<boolean> {
    if (isConnectionError(error) || isForgeError(error, 'FORGE_COMMIT_UNKNOWN')) {
      for (const entry of batch) entry.doubted = true
      return false
    }
    if (codeOf(error) === '23514') {
      await this.#context.ensurePartitions().catch(() => {})
      return false
    }
    if (batch.length > 1) {
      for (const entry of batch) await this.#persist([entry])
      return true
    }
    const [entry] = batch
    this.#context.runtime.log.error(
      `forge: could not write the end of job ${entry?.run.row.id}: ${messageOf(error)}`,
    )
    if (entry) entry.bare = true
    return false
  }

  async #writeBatch(batch: readonly Entry[]): Promise<void> {
    const finals = batch.filter((entry) => entry.finish.kind === 'final')
    const backs = batch.filter((entry) => entry.finish.kind === 'again')
    const written = new Set<string>()
    if (finals.length > 0) await this.#finish(finals, written)
    if (backs.length > 0) await this.#putBack(backs, written)
    const missed = batch.filter((entry) => !written.has(entry.run.row.id))
    const fates = await this.#explain(missed)
    for (const entry of batch) entry.settled.resolve(fates.get(entry) ?? 'written')
  }

  async #finish(entries: readonly Entry[], written: Set<string>): Promise<void> {
    const values = finishArrays(entries.map((entry) => this.#finalOf(entry)))
    for (const row of await this.#context.session.run(finishJobs, [...values, false])) written.add(row.id)
  }

  async #putBack(entries: readonly Entry[], written: Set<string>): Promise<void> {
    const backs = entries.map((entry) => ({ entry, finish: entry.finish as Finish & { kind: 'again' } }))
    const rows = await this.#context.session.run(putBackJobs, [
      backs.map(({ entry }) => entry.run.row.id),
      backs.map(({ entry }) => entry.run.row.token),
      backs.map(({ finish }) => stateNumber(finish.state)),
      backs.map(({ finish }) => finish.delayMs),
      backs.map(({ finish }) => finish.refund),
      backs.map(({ entry, finish }) => this.#errorOf(entry, finish.error)),
    ])
    for (const row of rows) written.add(row.id)
  }

  /** Why rows were refused: a cancel mark that this node had not heard of, an earlier try that did commit, or loss. */
  async #explain(missed: readonly Entry[]): Promise<Map<Entry, Fate>> {
    const fates = new Map<Entry, Fate>(missed.map((entry) => [entry, 'lost']))
    const marked = missed.filter((entry) => entry.finish.kind === 'again')
    if (marked.length > 0) {
      const values = finishArrays(marked.map((entry) => this.#cancelledOf(entry)))
      const rows = await this.#context.session.run(finishJobs, [...values, true])
      const ids = new Set(rows.map((row) => row.id))
      for (const entry of marked) if (ids.has(entry.run.row.id)) fates.set(entry, 'cancelled')
    }
    const doubted = missed.filter((entry) => entry.doubted && fates.get(entry) === 'lost')
    if (doubted.length > 0) {
      const arrays = [doubted.map((entry) => entry.run.row.id), doubted.map((entry) => entry.run.row.token)]
      const rows = await this.#context.session.run(finishedByToken, arrays)
      const ids = new Set(rows.map((row) => row.id))
      for (const entry of doubted) if (ids.has(entry.run.row.id)) fates.set(entry, 'written')
    }
    return fates
  }

  #finalOf(entry: Entry): FinalRow {
    const finish = entry.finish as Finish & { kind: 'final' }
    const { json, tooLarge } = entry.bare
      ? { json: 'null', tooLarge: true }
      : encodeForgiving(finish.value, resultLimits)
    return {
      run: entry.run,
      state: finish.state,
      result: finish.state === 'completed' ? json : null,
      tooLarge: finish.state === 'completed' && tooLarge,
      error: this.#errorOf(entry, finish.error),
      reason: entry.bare ? null : (finish.reason ?? null),
      keepMs: keepMs(entry.run, finish.state, this.#context.keep),
    }
  }

  #cancelledOf(entry: Entry): FinalRow {
    const error = this.#errorOf(entry, (entry.finish as Finish & { kind: 'again' }).error)
    const rest = { state: 'cancelled', result: null, tooLarge: false, reason: null } as const
    return { run: entry.run, ...rest, error, keepMs: keepMs(entry.run, 'cancelled', this.#context.keep) }
  }

  #errorOf(entry: Entry, error: unknown): string | null {
    if (error === undefined || entry.bare) return null
    const { clock, nodeId } = this.#context.runtime
    const at = new Date(clock.wallMs()).toISOString()
    return JSON.stringify(describeError(error, { at, attempt: entry.run.row.attempt, node: nodeId }))
  }
}

/** One job's end as a row for `finishJobs`. */
export interface FinalRow {
  readonly run: JobRun
  readonly state: FinalState
  readonly result: string | null
  readonly tooLarge: boolean
  readonly error: string | null
  readonly reason: string | null
  readonly keepMs: number
}

export function finishArrays(rows: readonly FinalRow[]): unknown[] {
  return [
    rows.map(({ run }) => run.row.id),
    rows.map(({ run }) => run.row.token),
    rows.map(({ state }) => stateNumber(state)),
    rows.map(({ result }) => result),
    rows.map(({ tooLarge }) => tooLarge),
    rows.map(({ error }) => error),
    rows.map(({ reason }) => reason?.slice(0, 1_000).replaceAll('\u0000', '\uFFFD') ?? null),
    rows.map(({ keepMs: ms }) => ms),
  ]
}

export function keepMs(run: JobRun, state: FinalState, keep: Keep): number {
  const short = state === 'completed' || state === 'cancelled'
  const own = short ? run.spec.keep.completedMs : run.spec.keep.discardedMs
  return own ?? (short ? keep.completedMs : keep.discardedMs)
}
