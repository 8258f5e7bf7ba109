import { type Duration, ForgeError, type ForgeErrorCode, sleep, within } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { JobRegistry } from './define.js'
import { type ReadFilter, readWhich, type Which } from './filter.js'
import { firstFinal, type JobState, type Keep, type Priority, stateName } from './job.js'
import { inputsToRetry } from './queries/change.js'
import { findRetryable, findUnfinished, statesOfJobs } from './queries/list.js'
import { validateStored } from './validate.js'

/** What a change came to. */
export interface Changed {
  /** The jobs that it reached, in the order of their ids. A dry run reaches none. */
  readonly ids: readonly string[]
  /** How many jobs it applied to; in a dry run, how many it would apply to. */
  readonly matching: number
  /** True: the limit was reached, and there may be more than `matching`. */
  readonly more: boolean
  /** Jobs named by id that it does not apply to, and where they stand; null: there is no such job. */
  readonly skipped: readonly { readonly id: string; readonly state: JobState | null }[]
  /** Jobs that it applies to and could not reach, and why. */
  readonly refused: readonly Refused[]
}

export interface Refused {
  readonly id: string
  readonly code: ForgeErrorCode
  readonly message: string
}

/** Options of every change. */
export interface ChangeOptions {
  /** True: nothing is changed, only counted. */
  readonly dryRun?: boolean
}

export interface EndOptions extends ChangeOptions {
  /** Stands in the job's history; the first 1,000 characters of it. */
  readonly reason?: string
}

/** When and how urgently a waiting job is to run: at least one of the three. */
export interface RescheduleOptions extends ChangeOptions {
  /** So long from now, by the database clock. Not together with `runAt`. */
  readonly delay?: Duration
  readonly runAt?: Date
  readonly priority?: Priority
}

/** Told which gates jobs came to, or left, so that whoever waits there is looked at. */
export interface Admission {
  request(gates: readonly string[]): void
}

export interface ChangeParts {
  readonly runtime: Runtime
  readonly keep: Keep
  /** The definitions of this process: their own `keep`, and their schemas. */
  readonly registry: Pick<JobRegistry, 'get' | 'all'>
  readonly admission: Admission
}

/** Told of a job that a pass does not reach however often it tries. */
export type Refuse = (id: string, error: ForgeError) => void

/** One kind of change: the states it applies to, and one pass over some jobs; it answers with the ids it reached. */
export interface Change {
  readonly states: readonly number[]
  readonly checksInput?: boolean
  readonly apply: (
    ids: readonly string[],
    states: readonly number[],
    refuse: Refuse,
  ) => Promise<readonly string[]>
}

/** A change under way. */
interface Progress {
  readonly change: Change
  readonly states: readonly number[]
  readonly reached: Set<string>
  readonly refused: Map<string, Refused>
}

/** Changed in one transaction on the shared connection, so that enqueues get their turn in between. */
const portionMax = 500
/** Inputs may have 1 MB each. */
const inputsPerRead = 50
/** How long jobs are waited for while somebody else has them locked. */
const busyMs = 5_000
const validateMs = 5_000

/** Changes jobs, by id or by filter, on forge's own connections. */
export class Changer {
  readonly #parts: ChangeParts

  constructor(parts: ChangeParts) {
    this.#parts = parts
  }

  /** @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_JOB_BUSY when it reached nothing else */
  async change(which: Which, change: Change, dryRun: boolean): Promise<Changed> {
    const filter = readWhich(which, dryRun)
    const states = change.states.filter((state) => filter.states?.includes(state) ?? true)
    const found = filter.plain && !dryRun ? (filter.ids ?? []) : await this.#find(filter, states)
    const more = !filter.plain && found.length === filter.limit
    if (dryRun) {
      const skipped = await this.#standing(filter.ids ?? [], new Set(found))
      return { ids: [], matching: found.length, more, skipped, refused: [] }
    }
    const reached = new Set<string>()
    const refused = new Map<string, Refused>()
    if (change.checksInput) for (const each of await this.#checkInputs(found)) refused.set(each.id, each)
    const wanted = found.filter((id) => !refused.has(id))
    const progress = { change, states, reached, refused }
    await this.#apply(wanted, progress)
    await this.#persist(wanted, progress)
    const ids = [...reached].sort()
    const known = new Set([...ids, ...refused.keys()])
    const skipped = await this.#standing(filter.ids ?? [], known)
    return { ids, matching: known.size, more, skipped, refused: [...refused.values()] }
  }

  /** One pass over these jobs, in portions. */
  async #apply(wanted: readonly string[], { change, states, reached, refused }: Progress): Promise<void> {
    const refuse: Refuse = (id, error) => void refused.set(id, refusalOf(id, error))
    for (let from = 0; from < wanted.length; from += portionMax)
      for (const id of await change.apply(wanted.slice(from, from + portionMax), states, refuse))
        reached.add(id)
  }

  async #find(filter: ReadFilter, states: readonly number[]): Promise<readonly string[]> {
    if (states.length === 0) return []
    const find = states.some((state) => state >= firstFinal) ? findRetryable : findUnfinished
    const rows = await this.#parts.runtime.db.reader.run(find, [states, ...filter.rest, filter.limit])
    return rows.map(({ id }) => id)
  }

  /** Jobs may be locked for a moment, by a claim or by their own transaction: those are waited for. */
  async #persist(wanted: readonly string[], progress: Progress): Promise<void> {
    const { states, reached, refused } = progress
    const { clock, db } = this.#parts.runtime
    const until = clock.monotonicMs() + busyMs
    for (;;) {
      const left = wanted.filter((id) => !reached.has(id) && !refused.has(id))
      const rows = left.length > 0 ? await db.control.run(statesOfJobs, [left]) : []
      const busy = rows.filter(({ state }) => states.includes(state)).map(({ id }) => id)
      if (busy.length === 0) return
      if (clock.monotonicMs() > until) return this.#giveUp(busy, progress)
      await sleep(clock, 100)
      await this.#apply(busy, progress)
    }
  }

  #giveUp(busy: readonly string[], { reached, refused }: Progress): void {
    if (reached.size === 0) throw new ForgeError('FORGE_JOB_BUSY', `Job ${busy[0]}.`)
    for (const id of busy) refused.set(id, refusalOf(id, new ForgeError('FORGE_JOB_BUSY', `Job ${id}.`)))
  }

  /** Where those of the named jobs stand that the change did not come to. */
  async #standing(ids: readonly string[], known: ReadonlySet<string>): Promise<Changed['skipped']> {
    const left = ids.filter((id) => !known.has(id))
    if (left.length === 0) return []
    const rows = await this.#parts.runtime.db.control.run(statesOfJobs, [left])
    const states = new Map(rows.map(({ id, state }) => [id, stateName(state)]))
    return left.map((id) => ({ id, state: states.get(id) ?? null }))
  }

  /** Which of these jobs their definition, where this process has it, would not accept any more. */
  async #checkInputs(ids: readonly string[]): Promise<Refused[]> {
    const { runtime, registry } = this.#parts
    const names = registry.all().flatMap((spec) => (spec.input ? [spec.name] : []))
    const refused: Refused[] = []
    if (names.length === 0) return refused
    for (let from = 0; from < ids.length; from += inputsPerRead) {
      const portion = ids.slice(from, from + inputsPerRead)
      for (const { id, name, input } of await runtime.db.reader.run(inputsToRetry, [portion, names])) {
        const spec = registry.get(name)
        const error = spec && (await refusal(validateStored(spec, input), runtime))
        if (error) refused.push(refusalOf(id, error))
      }
    }
    return refused
  }
}

function refusalOf(id: string, { code, message }: ForgeError): Refused {
  return { id, code, message }
}

/** What a validator says against an input; one that does not answer says no. */
async function refusal(checked: Promise<unknown>, { clock }: Runtime): Promise<ForgeError | null> {
  const late = (): Error =>
    new ForgeError('FORGE_INPUT_INVALID', `The validator gave no answer in ${validateMs} ms.`)
  try {
    await within(checked, { clock, ms: validateMs, late })
    return null
  } catch (error) {
    if (error instanceof ForgeError) return error
    throw error
  }
}
