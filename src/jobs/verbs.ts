import {
  asRecord,
  codeOf,
  durationMs,
  ForgeError,
  invalidOption,
  storableText,
  unknownOption,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Change, ChangeParts, EndOptions, Refuse, RescheduleOptions } from './change.js'
import { readPriority } from './define.js'
import { topics } from './hints.js'
import { stateNumber } from './job.js'
import { jobFinished } from './news.js'
import { keepDays } from './prune.js'
import {
  endLocked,
  keyedJobs,
  keysTaken,
  type LockedRow,
  lockJobs,
  lockKeys,
  markCancelled,
  rescheduleJobs,
  retryFinished,
  retryWaiting,
} from './queries/change.js'
import { ensurePartitions } from './queries/upkeep.js'

const running = stateNumber('running')
const retryable = stateNumber('retryable')
const waiting = (['scheduled', 'blocked', 'available', 'retryable'] as const).map(stateNumber)
const notCompleted = (['cancelled', 'discarded', 'quarantined'] as const).map(stateNumber)
/** History is made ready for what finishes within so many days. */
const aheadDays = 7

interface Reached {
  readonly id: string
  readonly gates: readonly string[] | null
}

/** Finished jobs that did not complete come back with fresh attempts; retryable ones stop waiting. */
export function retry({ runtime, admission }: ChangeParts): Change {
  const { control } = runtime.db
  return {
    states: [retryable, ...notCompleted],
    checksInput: true,
    async apply(ids, states, refuse) {
      const reached: Reached[] = []
      if (states.includes(retryable)) reached.push(...(await control.run(retryWaiting, [ids])))
      const final = states.filter((state) => state !== retryable)
      if (final.length > 0) {
        const keyed = new Set((await control.run(keyedJobs, [ids, final])).map(({ id }) => id))
        const plain = ids.filter((id) => !keyed.has(id))
        if (plain.length > 0) reached.push(...(await control.run(retryFinished, [plain, final])))
        if (keyed.size > 0) reached.push(...(await retryKeyed(runtime, [[...keyed], final], refuse)))
      }
      if (reached.length > 0) runtime.signals.hint(topics.later, 'retry')
      admission.request(gatesOf(reached))
      return reached.map(({ id }) => id)
    },
  }
}

/**
 * A key may be locked for as long as a transaction of the user's own is open: the connection that enqueues and claims
 * does not wait for that.
 */
function retryKeyed(
  { db }: Runtime,
  [ids, final]: readonly [readonly string[], readonly number[]],
  refuse: Refuse,
): Promise<readonly Reached[]> {
  return db.reader.transaction(async (run) => {
    await run(lockKeys, [ids, final])
    const taken = await run(keysTaken, [ids, final])
    for (const { id, holder } of taken)
      refuse(id, new ForgeError('FORGE_KEY_TAKEN', `Job ${id}: its key is that of job ${holder}.`))
    const others = new Set(taken.map(({ id }) => id))
    return run(retryFinished, [ids.filter((id) => !others.has(id)), final])
  })
}

/** Waiting jobs end as cancelled; running ones are marked, and their handlers' signals abort. */
export function cancel(parts: ChangeParts, reason: string): Change {
  return {
    states: [...waiting, running],
    apply: (ids, states) => new Ending(parts, 'cancelled', reason).apply(ids, states),
  }
}

/** Waiting jobs end as dead letters. Running ones are not reached: only their handler can give them up. */
export function discard(parts: ChangeParts, reason: string): Change {
  return {
    states: waiting,
    apply: (ids, states) => new Ending(parts, 'discarded', reason).apply(ids, states),
  }
}

/** Waiting jobs get another time, or another urgency. */
export function reschedule({ runtime, admission }: ChangeParts, given: Rescheduling): Change {
  return {
    states: waiting,
    async apply(ids, states) {
      const values = [ids, states, given.delayMs, given.runAt, given.priority]
      const rows = await runtime.db.control.run(rescheduleJobs, values)
      if (rows.length > 0) runtime.signals.hint(topics.later, 'reschedule')
      admission.request(gatesOf(rows))
      return rows.map(({ id }) => id)
    },
  }
}

/** Every gate once: those of jobs that wait there now, and of jobs that left a place to others. */
function gatesOf(reached: readonly Reached[]): string[] {
  return [...new Set(reached.flatMap(({ gates }) => gates ?? []))]
}

/** One pass that ends jobs: lock, mark what runs, move what waits to history. */
class Ending {
  readonly #parts: ChangeParts
  readonly #final: 'cancelled' | 'discarded'
  readonly #reason: string

  constructor(parts: ChangeParts, final: 'cancelled' | 'discarded', reason: string) {
    this.#parts = parts
    this.#final = final
    this.#reason = storableText(reason, 1_000)
  }

  async apply(ids: readonly string[], states: readonly number[]): Promise<string[]> {
    const { runtime, admission } = this.#parts
    const { rows, gone } = await this.#inPartitions(() => this.#once(ids, states))
    for (const { id, state, name, queue } of rows) {
      if (state === running) runtime.signals.hint(topics.cancel, id)
      else runtime.news.emit(jobFinished, { id, name, queue, state: this.#final })
    }
    admission.request(gatesOf(gone))
    return rows.map(({ id }) => id)
  }

  #once(ids: readonly string[], states: readonly number[]): Promise<{ rows: LockedRow[]; gone: Reached[] }> {
    return this.#parts.runtime.db.control.transaction(async (run) => {
      const rows = await run(lockJobs, [ids, states])
      const marked = rows.filter(({ state }) => state === running).map(({ id }) => id)
      if (marked.length > 0) await run(markCancelled, [marked, this.#reason])
      const ends = rows.filter(({ state }) => state !== running)
      const keeps = ends.map(({ name }) => this.#keepMs(name))
      const values = [ends.map(({ id }) => id), keeps, stateNumber(this.#final), this.#reason]
      return { rows, gone: ends.length > 0 ? await run(endLocked, values) : [] }
    })
  }

  /** The definition's own, where this process knows it. */
  #keepMs(name: string): number {
    const { registry, keep } = this.#parts
    const key = this.#final === 'cancelled' ? 'completedMs' : 'discardedMs'
    return registry.get(name)?.keep[key] ?? keep[key]
  }

  /** The partition for a keep that no node has may be missing: it is made, and the pass repeated. */
  async #inPartitions<T>(pass: () => Promise<T>): Promise<T> {
    try {
      return await pass()
    } catch (error) {
      if (codeOf(error) !== '23514') throw error
      const { runtime, registry, keep } = this.#parts
      const own = registry.all().flatMap((spec) => [spec.keep.completedMs, spec.keep.discardedMs])
      const days = keepDays([...own, keep.completedMs, keep.discardedMs])
      await runtime.db.control.run(ensurePartitions, [days, aheadDays])
      return pass()
    }
  }
}

/** @throws ForgeError FORGE_OPTION_INVALID, FORGE_OPTION_UNKNOWN */
export function readEnding(given: unknown, fallback: string): { reason: string; dryRun: boolean } {
  if (typeof given === 'string') return { reason: given, dryRun: false }
  const record = readOptions(given, ['reason', 'dryRun'] satisfies (keyof EndOptions)[])
  const { reason = fallback } = record
  if (typeof reason !== 'string') throw invalidOption('Option reason', 'must be text')
  return { reason, dryRun: readDryRun(record) }
}

export interface Rescheduling {
  readonly delayMs: number | null
  readonly runAt: Date | null
  readonly priority: number | null
  readonly dryRun: boolean
}

/** @throws ForgeError FORGE_OPTION_INVALID, FORGE_OPTION_UNKNOWN, FORGE_DURATION_INVALID */
export function readRescheduling(given: unknown): Rescheduling {
  const known = ['delay', 'runAt', 'priority', 'dryRun'] satisfies (keyof RescheduleOptions)[]
  const record = readOptions(given, known)
  const { delay, runAt, priority } = record
  if (delay !== undefined && runAt !== undefined)
    throw invalidOption('Options delay and runAt', 'exclude each other')
  if (delay === undefined && runAt === undefined && priority === undefined)
    throw invalidOption('reschedule()', 'needs delay, runAt or priority')
  if (runAt !== undefined && !isUsable(runAt)) throw invalidOption('Option runAt', 'must be a valid Date')
  return {
    delayMs: delay === undefined ? null : durationMs(delay, 'Option delay'),
    runAt: (runAt as Date | undefined) ?? null,
    priority: priority === undefined ? null : readPriority(priority, 'Option priority'),
    dryRun: readDryRun(record),
  }
}

/** From 1970 to 2200: beyond them the units are mistaken. */
function isUsable(value: unknown): boolean {
  return value instanceof Date && value.getTime() >= 0 && value.getUTCFullYear() < 2200
}

export function readRetrying(given: unknown): boolean {
  return readDryRun(readOptions(given, ['dryRun']))
}

function readOptions(given: unknown, known: readonly string[]): Record<string, unknown> {
  const record = asRecord(given, 'The options of a change')
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  return record
}

function readDryRun({ dryRun = false }: Record<string, unknown>): boolean {
  if (typeof dryRun !== 'boolean') throw invalidOption('Option dryRun', 'must be true or false')
  return dryRun
}
