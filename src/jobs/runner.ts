import type { Membership } from '../cluster/index.js'
import { encodeForgiving, ForgeError, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import type { Claims } from './claims.js'
import { type Finisher, keepMs } from './complete.js'
import type { ContextParts } from './context.js'
import { Deadlines } from './deadlines.js'
import type { JobRegistry } from './define.js'
import { armPatience, execute, type RunListener } from './execute.js'
import type { Frontier } from './frontier.js'
import { hintReady } from './hints.js'
import { decide, type Finish, type Outcome, suspectCrashes } from './job.js'
import { jobFinished, jobLost, jobRetried } from './news.js'
import { resultLimits } from './options.js'
import type { Pace } from './pace.js'
import { Roster } from './roster.js'
import { type AbortKind, type ClaimedRow, JobRun } from './run.js'
import type { Shelf } from './shelf.js'
import type { Slots } from './slots.js'
import type { Brought, Completed } from './trip.js'

export interface RunnerParts {
  readonly runtime: Runtime
  readonly membership: Membership
  readonly registry: JobRegistry
  readonly slots: Slots
  readonly admission: Pick<Admission, 'request'>
  readonly finisher: Finisher
  readonly context: ContextParts
  readonly frontier: Frontier
  readonly shelf: Shelf
  readonly pace: Pace
  readonly claims: Claims
  /** A job completed in the ordinary way: it goes with the next trip. */
  complete(done: Completed): void
  /** Claimed jobs are at hand; they start when this returns. */
  stocked(): void
  /** A slot became free, or a job ended: look whether a trip is due. */
  changed(): void
  /** Another suspect may be claimed now. */
  suspectEnded(): void
}

type Writable = Exclude<Finish, { kind: 'none' }>

/** Claimed jobs that did not start within this time go back, so that another node can have them. */
const shelfMsMax = 2_000
const handBack = { kind: 'handBack' } as const
const nothing = { json: 'null', tooLarge: false }

/** It lost its process before, and may have been the cause. */
const isSuspect = (run: JobRun): boolean => run.row.crashes >= suspectCrashes

/** The jobs that were claimed here, each from its claim to its durable end. */
export class Runner implements RunListener {
  readonly #parts: RunnerParts
  readonly #deadlines: Deadlines
  /** Claimed and not yet durably ended; the shelf's jobs are among them. */
  readonly #runs = new Roster()
  readonly #debts = new Set<JobRun>()
  readonly #onAbort = (run: JobRun): void => armPatience(run, this.#parts.context, this)
  #shelfTimer: Timer | null = null
  #refusing = false

  constructor(parts: RunnerParts) {
    this.#parts = parts
    this.#deadlines = new Deadlines(parts.runtime.clock, () => this.#runs.all())
  }

  get size(): number {
    return this.#runs.size
  }

  get ids(): string[] {
    return this.#runs.all().map(({ id }) => id)
  }

  /** Slots held by handlers that went on although their job was taken from them. */
  get debt(): number {
    return this.#debts.size
  }

  get hasSuspect(): boolean {
    return this.#runs.all().some(isSuspect)
  }

  /** True when one of these jobs is here. */
  hasAny(ids: readonly string[]): boolean {
    return this.#runs.find(ids).length > 0
  }

  /** What a claim under this epoch brought. */
  accept(brought: Pick<Brought, 'rows' | 'token' | 'stamp'>, epoch: string): void {
    const { runtime, membership, shelf, claims } = this.#parts
    // The answer may come after a stop, or after the lease was lost: then nothing of it starts.
    const refused = this.#refusing || !membership.trusted || membership.epoch !== epoch
    const queues = new Set<string>()
    claims.opened(brought.token, brought.rows.length)
    const claimedMs = runtime.clock.monotonicMs()
    for (const row of brought.rows) {
      const run = this.#meet(row, brought, claimedMs)
      if (!run) continue
      if (refused) this.#conclude(run, handBack)
      else if (row.cancelled) this.#conclude(run, { kind: 'cancel' })
      else {
        if (isSuspect(run)) shelf.putFirst(run)
        else shelf.put(run)
        queues.add(run.queue)
      }
    }
    if (queues.size > 0) this.#parts.stocked()
    for (const queue of queues) this.#dispatch(queue)
    if (!shelf.empty) this.#watchShelf()
  }

  #meet(
    row: ClaimedRow,
    { token, stamp }: Pick<Brought, 'token' | 'stamp'>,
    claimedMs: number,
  ): JobRun | null {
    const { frontier, registry } = this.#parts
    // Always there: lanes and definitions are added and replaced, never removed.
    const lane = frontier.lane(row.lane)
    const spec = lane && registry.get(lane.name)
    if (!lane || !spec) return null
    const run = new JobRun({ row, token, stamp, spec, queue: lane.queue, claimedMs })
    this.#runs.add(run)
    return run
  }

  #dispatch(queue: string): void {
    const { slots, shelf } = this.#parts
    while (slots.free(queue) > 0) {
      const run = shelf.take(queue)
      if (!run) return
      this.#start(run)
    }
  }

  #start(run: JobRun): void {
    const { slots, context, runtime } = this.#parts
    slots.take(run.queue)
    run.startedMs = runtime.clock.monotonicMs()
    run.deadlineMs = run.startedMs + run.spec.timeoutMs
    this.#deadlines.watch(run)
    run.whenAborted(this.#onAbort)
    void execute(run, context, this)
  }

  concluded(run: JobRun, outcome: Outcome): void {
    if (!run.settled) this.#debts.add(run)
    this.#conclude(run, outcome)
  }

  settled(run: JobRun): void {
    const { slots, pace, runtime } = this.#parts
    this.#debts.delete(run)
    slots.release(run.queue)
    pace.note(run.queue, runtime.clock.monotonicMs() - run.startedMs)
    this.#dispatch(run.queue)
    this.#parts.changed()
  }

  /** Writes what came out: completions of the ordinary kind with the next trip, the rest by the finisher. */
  #conclude(run: JobRun, outcome: Outcome): void {
    if (outcome.kind === 'returned' && !run.heldRow) {
      const { value } = outcome
      const { json, tooLarge } = value === undefined ? nothing : encodeForgiving(value, resultLimits)
      const keep = keepMs(run, 'completed', this.#parts.context.keep)
      if (!tooLarge)
        return this.#parts.complete({ run, value, json: json === 'null' ? null : json, keepMs: keep })
    }
    const counted = { attempt: run.row.attempt, attemptsMax: run.row.attempts_max }
    const finish = decide(outcome, counted, { retry: run.spec.retry, random: Math.random() })
    if (finish.kind !== 'none') return void this.#write(run, finish, false)
    if (outcome.kind === 'lost') this.lost(run)
    else this.#ended(run, { kind: 'final', state: 'completed' })
  }

  /** A completion is durable. */
  completed({ run }: Completed): void {
    this.#ended(run, { kind: 'final', state: 'completed' })
  }

  /** A completion was not accepted with its neighbours, or (`doubted`) is not known to be. */
  refused({ run, value }: Completed, doubted: boolean): void {
    void this.#write(run, { kind: 'final', state: 'completed', value }, doubted)
  }

  async #write(run: JobRun, finish: Writable, doubted: boolean): Promise<void> {
    const fate = await this.#parts.finisher.write(run, finish, doubted)
    if (finish.kind === 'again' && finish.state === 'available')
      hintReady(this.#parts.runtime.signals, { lane: run.row.lane, waits: false, due: null })
    if (fate === 'lost') this.lost(run)
    else this.#ended(run, fate === 'cancelled' ? { kind: 'final', state: 'cancelled' } : finish)
    // Claims may have waited for ends to be written.
    this.#parts.changed()
  }

  #ended(run: JobRun, finish: Writable): void {
    const { id, spec, queue } = run
    const { news } = this.#parts.runtime
    if (run.row.gates) this.#parts.admission.request(run.row.gates)
    if (finish.kind === 'final') news.emit(jobFinished, { id, name: spec.name, queue, state: finish.state })
    else news.emit(jobRetried, { id, name: spec.name, delayMs: finish.delayMs })
    this.#parts.claims.ended(run.token)
    this.#forget(run)
  }

  /** Nothing may be written for it any more. */
  lost(run: JobRun): void {
    this.#parts.runtime.news.emit(jobLost, { id: run.id, name: run.spec.name })
    this.#parts.claims.lost(run.token)
    this.#forget(run)
  }

  #forget(run: JobRun): void {
    this.#parts.context.progress.forget(run)
    this.#runs.remove(run)
    // While it ran no other suspect was claimed; there may be one. One that went back unstarted is left to nodes with a free slot.
    if (isSuspect(run) && run.startedMs > 0) this.#parts.suspectEnded()
    if (this.#runs.size === 0) this.#parts.changed()
  }

  /** A cancel mark was seen for these ids. */
  cancel(ids: readonly string[]): void {
    const marked = new Set(ids)
    for (const run of this.#parts.shelf.remove(({ id }) => marked.has(id)))
      this.#conclude(run, { kind: 'cancel' })
    for (const run of this.#runs.find(marked))
      run.abort('cancel', new ForgeError('FORGE_JOB_CANCELLED', `Job ${run.id}.`))
  }

  /** Gives back what was claimed and did not start: of these queues, or of all. */
  unload(queues?: ReadonlySet<string>): void {
    for (const run of this.#parts.shelf.remove(({ queue }) => queues?.has(queue) ?? true))
      this.#conclude(run, handBack)
  }

  abortAll(kind: AbortKind, why: string): void {
    const reason = new ForgeError(kind === 'stop' ? 'FORGE_STOPPED' : 'FORGE_LEASE_LOST', `${why}.`)
    if (kind === 'lost') for (const run of this.#parts.shelf.remove(() => true)) this.lost(run)
    for (const run of this.#runs.all()) run.abort(kind, reason)
  }

  /** Nothing starts any more: what claims still bring goes back. */
  refuse(): void {
    this.#refusing = true
  }

  stop(): void {
    this.#deadlines.stop()
    this.#shelfTimer?.cancel()
  }

  #watchShelf(): void {
    const { runtime, shelf, pace } = this.#parts
    this.#shelfTimer ??= runtime.clock.timer(shelfMsMax / 2, () => {
      this.#shelfTimer = null
      const since = runtime.clock.monotonicMs() - shelfMsMax
      for (const run of shelf.remove(({ claimedMs }) => claimedMs < since)) {
        pace.stall(run.queue)
        this.#conclude(run, handBack)
      }
      if (!shelf.empty) this.#watchShelf()
    })
  }
}
