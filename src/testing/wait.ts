import { AssertionError } from 'node:assert'
import { type Job, type Jobs, type JobState, jobStates } from '../jobs/index.js'
import {
  asRecord,
  type Duration,
  durationMs,
  ForgeError,
  invalidOption,
  isUuid,
  sleep,
  systemClock,
  unknownOption,
} from '../kernel/index.js'
import { deadlineMsDefault } from './deadline.js'

/** One job by its id or its handle; or any job of a name, by its name or its definition. */
export type WaitTarget = string | { readonly id: string } | { readonly name: string }

const pollMs = 20
const finals: readonly JobState[] = ['completed', 'cancelled', 'discarded', 'quarantined']

/**
 * Waits until a job is in a state. Default timeout 10 s.
 * @throws ForgeError FORGE_TEST_DEADLINE, FORGE_OPTION_…; AssertionError at once when the job has ended in another way
 */
export async function waitFor(
  jobs: Jobs,
  target: WaitTarget,
  { state, options }: { state: JobState; options: { readonly timeout?: Duration } | undefined },
): Promise<Job> {
  const timeoutMs = readTimeout(options)
  if (!jobStates.includes(state)) throw invalidOption('The state', `must be one of ${jobStates.join(', ')}`)
  const find = finder(jobs, target)
  const until = systemClock.monotonicMs() + timeoutMs
  for (;;) {
    const job = await find.look(state)
    if (job?.state === state) return job
    if (job && finals.includes(job.state)) throw otherEnd(job, state)
    if (systemClock.monotonicMs() > until) {
      throw new ForgeError(
        'FORGE_TEST_DEADLINE',
        `${find.what} did not become '${state}' (${timeoutMs} ms); ${seen(job)}`,
      )
    }
    await sleep(systemClock, pollMs)
  }
}

interface Finder {
  readonly what: string
  /** The job; of a name one in the state, else null, since another may still come. */
  look(state: JobState): Promise<Job | null>
}

function finder(jobs: Jobs, target: unknown): Finder {
  const { id, name } = typeof target === 'string' ? { id: target } : asRecord(target, 'What is waited for')
  if (isUuid(id)) return { what: `Job ${id}`, look: () => jobs.get(id) }
  if (typeof name !== 'string' || name === '')
    throw invalidOption('What is waited for', 'must be the id or the handle of a job, or { name }')
  const look = async (state: JobState): Promise<Job | null> =>
    (await jobs.list({ name, state, limit: 1 }))[0] ?? null
  return { what: `A job '${name}'`, look }
}

function otherEnd(job: Job, state: JobState): AssertionError {
  const error = job.errors.at(-1)
  const why = error ? `: ${error.name}: ${error.message}` : job.reason ? `: ${job.reason}` : ''
  const message = `Job ${job.id} ('${job.name}') was to become '${state}', and ended as '${job.state}'${why}`
  return new AssertionError({
    message,
    expected: state,
    actual: job.state,
    operator: 'waitFor',
    stackStartFn: waitFor,
  })
}

function seen(job: Job | null): string {
  if (!job) return 'there is none in that state.'
  const later = ['scheduled', 'retryable'].includes(job.state) ? ` until ${job.runAt.toISOString()}` : ''
  return `it is '${job.state}'${later}. Nothing runs by itself here: drain() runs what is due.`
}

function readTimeout(options: unknown): number {
  const record = asRecord(options, 'The options of waitFor()')
  for (const key of Object.keys(record)) if (key !== 'timeout') throw unknownOption(key, ['timeout'])
  return record.timeout === undefined ? deadlineMsDefault : durationMs(record.timeout, 'Option timeout')
}
