import type { Session, Statement } from '../database/index.js'
import {
  codeOf,
  deferred,
  encodeForgiving,
  isConnectionError,
  isForgeError,
  messageOf,
  sleep,
  storableText,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { describeError, type FinalState, type Finish, type Keep, stateNumber } from './job.js'
import { resultLimits } from './options.js'
import { type ClaimKey, currentClaims, finishedByToken, finishJobs, putBackJobs } from './queries/finish.js'
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
  /** How often it was put aside. */
  tries: number
}

export interface FinisherContext {
  readonly runtime: Runtime
  readonly session: Session
  readonly keep: Keep
  /** Makes the partitions that a 23514 said are missing. */
  ensurePartitions(): Promise<void>
}

const keyOf = ({ id, token }: ClaimKey): string => id + token

const batchMax = 1_000
const laterMsMax = 5_000

/**
 * Writes the ends of jobs, many in one statement: whatever finishes while a write is under way goes with the next.
 * A write is repeated until PostgreSQL takes it or refuses it: a finished job must not run again for an outage. What
 * cannot be written now (its row is locked, or its content was refused) waits aside and holds nobody up.
 */
export class Finisher {
  readonly #context: FinisherContext
  readonly #abort = new AbortController()
  #entries: Entry[] = []
  readonly #aside = new Set<Entry>()
  #writing = false
  #backlog = 0
  #outages = 0
  /** The disk was full at the last try, and that was said. */
  #full = false

  constructor(context: FinisherContext) {
    this.#context = context
  }

  /**
   * Resolves when the outcome is durable, or is known to be refused. `doubted`: it was sent once before, and the answer
   * never came.
   */
  write(run: JobRun, finish: Exclude<Finish, { kind: 'none' }>, doubted = false): Promise<Fate> {
    const entry: Entry = { run, finish, settled: deferred<Fate>(), doubted, bare: false, tries: 0 }
    this.#entries.push(entry)
    this.#backlog += 1
    void this.#drain()
    return entry.settled.promise.finally(() => (this.#backlog -= 1))
  }

  /** Ends that are not yet written. */
  get backlog(): number {
    return this.#backlog
  }

  /** Gives up what PostgreSQL does not take; those jobs are rescued by the nodes that live. */
  abandon(): void {
    this.#abort.abort()
    for (const entry of [...this.#aside, ...this.#entries]) entry.settled.resolve('lost')
    this.#aside.clear()
    this.#entries = []
  }

  async #drain(): Promise<void> {
    if (this.#writing) return
    this.#writing = true
    while (this.#entries.length > 0) await this.#attempt(this.#entries.splice(0, batchMax))
    this.#writing = false
  }

  async #attempt(batch: Entry[]): Promise<void> {
    try {
      await this.#writeBatch(batch)
      this.#outages = 0
      this.#full = false
    } catch (error) {
      if (this.#abort.signal.aborted) for (const entry of batch) entry.settled.resolve('lost')
      else if (isConnectionError(error) || isForgeError(error, 'FORGE_COMMIT_UNKNOWN'))
        await this.#outlast(batch, true)
      else if (isForgeError(error, 'FORGE_DISK_FULL')) await this.#outlast(batch, false)
      else if (batch.length > 1) for (const entry of batch) await this.#attempt([entry])
      else await this.#mend(error, batch[0] as Entry)
    }
  }

  /** Nothing can be written now: all of them go again. `doubted`: the connection broke, and this try may have been taken. */
  async #outlast(batch: readonly Entry[], doubted: boolean): Promise<void> {
    for (const entry of batch) entry.doubted ||= doubted
    if (!doubted && !this.#full)
      this.#context.runtime.log.error(
        `forge: PostgreSQL has no room left on its disk; the ends of ${batch.length} jobs wait to be written`,
      )
    this.#full ||= !doubted
    this.#entries.unshift(...batch)
    await sleep(this.#context.runtime.clock, Math.min(50 * 2 ** this.#outages++, 1_000), this.#abort.signal)
  }

  async #mend(error: unknown, entry: Entry): Promise<void> {
    const code = codeOf(error)
    if (code === '23514') await this.#context.ensurePartitions().catch(() => {})
    // Only a fault of the data itself is cured by leaving the data out.
    else if (/^(22|54)/.test(code)) entry.bare = true
    if (code !== '23514' || entry.tries > 1) {
      this.#context.runtime.log.error(
        `forge: could not write the end of job ${entry.run.id}: ${messageOf(error)}`,
      )
    }
    this.#putAside(entry)
  }

  #putAside(entry: Entry): void {
    this.#aside.add(entry)
    this.#context.runtime.clock.timer(Math.min(50 * 2 ** entry.tries++, laterMsMax), () => {
      if (!this.#aside.delete(entry)) return
      this.#entries.push(entry)
      void this.#drain()
    })
  }

  async #writeBatch(batch: readonly Entry[]): Promise<void> {
    const finals = batch.filter((entry) => entry.finish.kind === 'final')
    const backs = batch.filter((entry) => entry.finish.kind === 'again')
    const written = new Set<string>()
    if (finals.length > 0) await this.#finish(finals, written)
    if (backs.length > 0) await this.#putBack(backs, written)
    for (const entry of batch) if (written.has(keyOf(entry.run))) entry.settled.resolve('written')
    const missed = batch.filter((entry) => !written.has(keyOf(entry.run)))
    if (missed.length > 0) await this.#explain(missed)
  }

  async #finish(entries: readonly Entry[], written: Set<string>): Promise<void> {
    const values = finishArrays(entries.map((entry) => this.#finalOf(entry)))
    for (const row of await this.#context.session.run(finishJobs, [...values, false])) written.add(keyOf(row))
  }

  async #putBack(entries: readonly Entry[], written: Set<string>): Promise<void> {
    const backs = entries.map((entry) => ({ entry, finish: entry.finish as Finish & { kind: 'again' } }))
    const rows = await this.#context.session.run(putBackJobs, [
      backs.map(({ entry }) => entry.run.id),
      backs.map(({ entry }) => entry.run.token),
      backs.map(({ finish }) => stateNumber(finish.state)),
      backs.map(({ finish }) => finish.delayMs),
      backs.map(({ finish }) => finish.refund),
      backs.map(({ entry, finish }) => this.#errorOf(entry, finish.error)),
    ])
    for (const row of rows) written.add(keyOf(row))
  }

  /**
   * Why rows were refused: a cancel mark that this node had not heard of; a lock, so that the claim is still the
   * current one and the write waits; an earlier try that did commit; or loss.
   */
  async #explain(missed: readonly Entry[]): Promise<void> {
    const cancelled = await this.#cancelMarked(missed.filter((entry) => entry.finish.kind === 'again'))
    const current = await this.#among(currentClaims, missed)
    const finished = await this.#among(
      finishedByToken,
      missed.filter((entry) => entry.doubted),
    )
    for (const entry of missed) {
      const key = keyOf(entry.run)
      if (cancelled.has(key)) entry.settled.resolve('cancelled')
      else if (current.has(key)) this.#putAside(entry)
      else entry.settled.resolve(finished.has(key) ? 'written' : 'lost')
    }
  }

  async #cancelMarked(entries: readonly Entry[]): Promise<Set<string>> {
    if (entries.length === 0) return new Set()
    const values = finishArrays(entries.map((entry) => this.#cancelledOf(entry)))
    const rows = await this.#context.session.run(finishJobs, [...values, true])
    return new Set(rows.map(keyOf))
  }

  async #among(question: Statement<ClaimKey>, entries: readonly Entry[]): Promise<Set<string>> {
    if (entries.length === 0) return new Set()
    const arrays = [entries.map((entry) => entry.run.id), entries.map((entry) => entry.run.token)]
    const rows = await this.#context.session.run(question, arrays)
    return new Set(rows.map(keyOf))
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
    rows.map(({ run }) => run.id),
    rows.map(({ run }) => run.token),
    rows.map(({ state }) => stateNumber(state)),
    rows.map(({ result }) => result),
    rows.map(({ tooLarge }) => tooLarge),
    rows.map(({ error }) => error),
    rows.map(({ reason }) => (reason === null ? null : storableText(reason, 1_000))),
    rows.map(({ keepMs: ms }) => ms),
  ]
}

export function keepMs(run: JobRun, state: FinalState, keep: Keep): number {
  const short = state === 'completed' || state === 'cancelled'
  const own = short ? run.spec.keep.completedMs : run.spec.keep.discardedMs
  return own ?? (short ? keep.completedMs : keep.discardedMs)
}
