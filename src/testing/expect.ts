import { AssertionError } from 'node:assert'
import { type Job, type Jobs, type JobState, jobStates, type Priority, readPriority } from '../jobs/index.js'
import { asRecord, type Duration, durationMs, invalidOption, unknownOption } from '../kernel/index.js'
import { type Difference, differences, show } from './match.js'

/** A job by its definition, or by its name. */
export type JobRef = string | { readonly name: string }

/** What a job must be like. Everything that is given must hold. */
export interface Expected {
  /** A part of the input: more fields may be there. Matchers such as `expect.any(String)` are asked. */
  readonly input?: unknown
  readonly queue?: string
  readonly priority?: Priority
  /** Within 5 s of this moment, or as near as `within` says. */
  readonly runAt?: Date | { readonly at: Date; readonly within: Duration }
  /** It must carry all of these. */
  readonly tags?: readonly string[]
  /** By default any state, finished ones included. */
  readonly state?: JobState
}

const known = ['input', 'queue', 'priority', 'runAt', 'tags', 'state', 'count']
const nearMs = 5_000
const pageSize = 200
/** Jobs that are looked through; a test with more of one name should clear between its parts. */
const jobsMax = 10_000
const shownMax = 10

/**
 * Expects at least one such job (or exactly `count`), and gives those it found, oldest first.
 * @throws AssertionError that shows the jobs that are there; ForgeError FORGE_OPTION_…
 */
export async function expectEnqueued(
  jobs: Jobs,
  ref: JobRef,
  expected: Expected & { count?: number },
): Promise<Job[]> {
  const { name, conditions, count } = readExpected(ref, expected)
  const all = await jobsNamed(jobs, name)
  const judged = all.map((job) => ({ job, misses: conditions.flatMap((condition) => condition(job)) }))
  const found = judged.filter(({ misses }) => misses.length === 0).map(({ job }) => job)
  if (count === undefined ? found.length > 0 : found.length === count) return found
  const wanted = `${count === undefined ? 'a job' : `${count} ${count === 1 ? 'job' : 'jobs'}`} ${wants(name, expected)}`
  const others = all.length === 0 ? await jobs.list({ limit: pageSize }) : []
  const message = [
    `Expected ${wanted} to be enqueued, and found ${found.length || 'none'}.`,
    ...(all.length > 0 ? list(`Jobs '${name}' that are there:`, judged) : elsewhere(name, others)),
  ].join('\n')
  throw failure(message, { expected, actual: all.map(asActual) }, expectEnqueued)
}

/** Expects that there is no such job. @throws AssertionError that shows those that are there; ForgeError FORGE_OPTION_… */
export async function expectNotEnqueued(jobs: Jobs, ref: JobRef, expected: Expected): Promise<void> {
  const { name, conditions, count } = readExpected(ref, expected)
  if (count !== undefined) throw invalidOption('Option count', 'says how many are expected; here it is none')
  const all = await jobsNamed(jobs, name)
  const found = all.filter((job) => conditions.every((condition) => condition(job).length === 0))
  if (found.length === 0) return
  const judged = found.map((job) => ({ job, misses: [] }))
  const message = [`Expected no job ${wants(name, expected)} to be enqueued:`, ...list('', judged)].join('\n')
  throw failure(message, { expected: [], actual: found.map(asActual) }, expectNotEnqueued)
}

/** What is wrong with a job; nothing when the condition holds. */
type Condition = (job: Job) => Difference[]

function readExpected(
  ref: unknown,
  expected: unknown,
): { name: string; conditions: readonly Condition[]; count: number | undefined } {
  const name = nameOf(ref)
  const given = asRecord(expected, 'What is expected')
  for (const key of Object.keys(given)) if (!known.includes(key)) throw unknownOption(key, known)
  const { count, input, queue, priority, runAt, tags, state } = given
  if (count !== undefined && !(Number.isInteger(count) && (count as number) >= 0))
    throw invalidOption('Option count', 'must be a whole number')
  if (state !== undefined && !jobStates.includes(state as JobState))
    throw invalidOption('Option state', `must be one of ${jobStates.join(', ')}`)
  const conditions: Condition[] = []
  const same = (path: 'queue' | 'state' | 'priority', value: unknown): void => {
    if (value !== undefined) conditions.push((job) => differences(value, job[path], path))
  }
  if (input !== undefined) conditions.push((job) => differences(input, job.input, 'input'))
  same('queue', queue)
  same('state', state)
  same('priority', priority === undefined ? undefined : readPriority(priority, 'Option priority'))
  if (runAt !== undefined) conditions.push(near(runAt))
  if (tags !== undefined) conditions.push(tagged(tags))
  return { name, conditions, count: count as number | undefined }
}

function nameOf(ref: unknown): string {
  const name = typeof ref === 'string' ? ref : (ref as { name?: unknown } | null | undefined)?.name
  if (typeof name === 'string' && name !== '') return name
  throw invalidOption('The job', 'must be a definition (what forge.job() returned) or a name')
}

function near(given: unknown): Condition {
  const exact = given instanceof Date
  const { at, within, ...rest } = exact ? { at: given, within: nearMs } : asRecord(given, 'Option runAt')
  for (const key of Object.keys(rest)) throw unknownOption(`runAt.${key}`, ['at', 'within'])
  if (!(at instanceof Date) || Number.isNaN(at.getTime()))
    throw invalidOption('Option runAt', 'must be a valid Date, or { at: Date, within: Duration }')
  const ms = durationMs(within, 'Option runAt.within')
  return ({ runAt }) =>
    Math.abs(runAt.getTime() - at.getTime()) <= ms ? [] : [{ path: 'runAt', expected: at, actual: runAt }]
}

function tagged(given: unknown): Condition {
  if (!Array.isArray(given) || !given.every((tag) => typeof tag === 'string'))
    throw invalidOption('Option tags', 'must be a list of texts')
  return (job) => {
    const tags = tagsOf(job)
    return given.every((tag) => tags.includes(tag)) ? [] : [{ path: 'tags', expected: given, actual: tags }]
  }
}

function tagsOf(job: Job): readonly string[] {
  return (job as { readonly tags?: readonly string[] | null }).tags ?? []
}

/** Oldest first. */
async function jobsNamed(jobs: Jobs, name: string): Promise<Job[]> {
  const found: Job[] = []
  for (;;) {
    const last = found.at(-1)
    const page = await jobs.list({ name, limit: pageSize, ...(last ? { before: last.id } : {}) })
    found.push(...page)
    if (page.length < pageSize || found.length >= jobsMax) return found.reverse()
  }
}

function wants(name: string, expected: object): string {
  const parts = Object.entries(expected).filter(([key, value]) => key !== 'count' && value !== undefined)
  const conditions = parts.map(([key, value]) => `${key} ${show(value)}`)
  return conditions.length === 0 ? `'${name}'` : `'${name}' with ${conditions.join(', ')}`
}

interface Judged {
  readonly job: Job
  readonly misses: readonly Difference[]
}

function list(head: string, judged: readonly Judged[]): string[] {
  // Those that come nearest first.
  const sorted = [...judged].sort((a, b) => a.misses.length - b.misses.length)
  const lines = sorted.slice(0, shownMax).flatMap(({ job, misses }) => {
    const about = `  ${job.id} ${job.state}, queue ${job.queue}, priority ${job.priority}, input ${show(job.input)}`
    return [
      about,
      ...misses.map(
        (miss) => `      ${miss.path}: expected ${show(miss.expected)}, got ${show(miss.actual)}`,
      ),
    ]
  })
  const rest = judged.length - shownMax
  return [...(head ? [head] : []), ...lines, ...(rest > 0 ? [`  … and ${rest} more`] : [])]
}

function elsewhere(name: string, others: readonly Job[]): string[] {
  if (others.length === 0)
    return [`No job is there at all: nothing was enqueued, or its transaction did not commit.`]
  const counts = new Map<string, number>()
  for (const job of others) counts.set(job.name, (counts.get(job.name) ?? 0) + 1)
  const lines = [...counts].map(([other, n]) => `  ${n} × ${other}`)
  return [
    `No job '${name}' is there. What is there${others.length === pageSize ? ' (the newest)' : ''}:`,
    ...lines,
  ]
}

function asActual({ state, queue, priority, runAt, input }: Job): object {
  return { state, queue, priority, runAt, input }
}

function failure(
  message: string,
  values: { expected: unknown; actual: unknown },
  from: (...args: never[]) => unknown,
): AssertionError {
  return new AssertionError({ message, ...values, operator: from.name, stackStartFn: from })
}
