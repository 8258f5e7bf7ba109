import { type JobState, jobStates, type Manual, type NextFilter, type RunEnd } from '../jobs/index.js'
import { asRecord, ForgeError, invalidOption, nearest, unknownOption } from '../kernel/index.js'

export interface DrainOptions {
  /** Only jobs of this queue. */
  readonly queue?: string
  /** Only jobs of this name. */
  readonly name?: string
  /** Also what waits for a time, retries included: the waiting is skipped, in the order of the times. Default false. */
  readonly scheduled?: boolean
  /** Also what waits for a time up to this one. Not together with `scheduled`. */
  readonly until?: Date
  /** At most so many runs; the rest stays where it is. Default: no limit, but 1,000 runs are taken for an endless loop. */
  readonly max?: number
}

/** One run that failed. */
export interface DrainFailure {
  readonly id: string
  readonly name: string
  readonly attempt: number
  /** What the attempt left the job in: retryable or discarded. */
  readonly state: JobState
  /** As it was thrown. */
  readonly error: unknown
}

/** What was run, counted by the state that each run left its job in; a job that ran twice counts twice. */
export type DrainReport = { readonly [State in JobState]: number } & {
  /** All runs. */
  readonly ran: number
  readonly failures: readonly DrainFailure[]
  /** True: `max` was reached and there is more. */
  readonly more: boolean
}

const known = ['queue', 'name', 'scheduled', 'until', 'max']
const endless = 1_000

interface Draining {
  readonly manual: Manual
  readonly run: (id: string) => Promise<RunEnd | null>
  /** A look at what changes by itself: jobs that others admit, cancel or make due. */
  readonly tick: () => Promise<void>
}

/**
 * Runs what is due, one after the other, the most urgent first, what is enqueued meanwhile included.
 * @throws ForgeError FORGE_OPTION_…; FORGE_TEST_ENDLESS after 1,000 runs without `max`; FORGE_TEST_DEADLINE when
 * another node keeps this one from a job
 */
export async function drain(parts: Draining, options: DrainOptions): Promise<DrainReport> {
  const { filter, max } = readOptions(options, parts.manual.names)
  const ends: RunEnd[] = []
  const off = parts.manual.onEnd((end) => ends.push(end))
  try {
    return report(ends, await drainAll(parts, { filter, max: max ?? Infinity, ends }))
  } finally {
    off()
  }
}

interface Bounds {
  readonly filter: NextFilter
  readonly max: number
  readonly ends: readonly RunEnd[]
}

/** True: there is more. */
async function drainAll(parts: Draining, { filter, max, ends }: Bounds): Promise<boolean> {
  const { manual } = parts
  const passed = new Set<string>()
  for (let looked = false; ;) {
    const next = await manual.next({ ...filter, except: [...passed] })
    if (!next) {
      if (looked) return false
      looked = true
      await parts.tick()
      continue
    }
    if (ends.length >= max) return true
    if (max === Infinity && ends.length >= endless)
      throw new ForgeError(
        'FORGE_TEST_ENDLESS',
        `drain() has run ${endless} jobs, and '${next.name}' is next.`,
      )
    looked = false
    if (!next.available) await manual.hurry(next.id)
    // It may wait on, for a limit, or be gone: then it is not asked for again.
    if (!(await parts.run(next.id))) passed.add(next.id)
  }
}

function report(ends: readonly RunEnd[], more: boolean): DrainReport {
  const counts = Object.fromEntries(jobStates.map((state) => [state, 0])) as Record<JobState, number>
  for (const { state } of ends) counts[state] += 1
  const failures = ends.flatMap((end) => (end.error === undefined ? [] : [{ ...end, error: end.error }]))
  return { ...counts, ran: ends.length, failures, more }
}

function readOptions(
  options: unknown,
  names: readonly string[],
): { filter: NextFilter; max: number | undefined } {
  const record = asRecord(options, 'The options of drain()')
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  const { queue, name, scheduled, until, max } = record
  if (queue !== undefined && typeof queue !== 'string') throw invalidOption('Option queue', 'must be text')
  if (name !== undefined) checkDefined(name, names)
  if (scheduled !== undefined && typeof scheduled !== 'boolean')
    throw invalidOption('Option scheduled', 'must be true or false')
  if (until !== undefined && !(until instanceof Date && !Number.isNaN(until.getTime())))
    throw invalidOption('Option until', 'must be a valid Date')
  if (until !== undefined && scheduled !== undefined)
    throw invalidOption('Options scheduled and until', 'exclude each other')
  if (max !== undefined && !(Number.isInteger(max) && (max as number) >= 1))
    throw invalidOption('Option max', 'must be a whole number from 1')
  const limit = until ?? (scheduled === true ? 'infinity' : undefined)
  const filter = { queue, name, until: limit } as NextFilter
  return { filter, max: max as number | undefined }
}

function checkDefined(name: unknown, names: readonly string[]): void {
  if (names.includes(name as string)) return
  const near = typeof name === 'string' ? nearest(name, names) : null
  const hint = near ? `; did you mean '${near}'?` : ''
  throw invalidOption('Option name', `must be the name of a job of this instance${hint}`)
}
