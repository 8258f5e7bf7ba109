import type { Changed, Job, JobFilter } from '../jobs/index.js'
import type { JobsVerb } from './flags.js'
import { columns, printable, wrapped } from './output.js'

const widthMax = 100
/** Characters of an input, a result or an error that are shown; `--json` has all of it. */
const textMax = 2_000
const linesMax = 50

/** A table, newest first, and how to see what comes after it. */
export function listText(jobs: readonly Job[], filter: JobFilter, nowMs: number): string {
  if (jobs.length === 0) return 'no jobs'
  const rows = jobs.map((job) => [
    job.id,
    job.state,
    `${job.attempt}/${job.attempts}`,
    age(nowMs - job.createdAt.getTime()),
    job.queue,
    job.name,
  ])
  const table = columns([['id', 'state', 'tried', 'age', 'queue', 'name'], ...rows], {
    widthMax,
    cut: [4, 5],
  })
  const more = jobs.length === (filter.limit ?? 50) ? `\n\nolder ones: --before ${jobs.at(-1)?.id}` : ''
  return table + more
}

/** '12s', '5m', '3h', '9d': made by this machine's clock, so never below nothing. */
function age(ms: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
  ] as const
  const [unit, size] = units.find(([, each]) => ms >= each) ?? ['s', 1_000]
  return `${Math.max(0, Math.floor(ms / size))}${unit}`
}

/** Everything about one job, a line for each thing that is there. */
export function jobText(job: Job): string {
  const pairs: (readonly [string, string | null])[] = [
    ['id', job.id],
    ['name', job.name],
    ['queue', job.queue],
    ['state', job.state + (job.cancelRequested ? ', asked to stop' : '')],
    ['reason', job.reason],
    [
      'attempts',
      `${job.attempt} of ${job.attempts}${job.crashes > 0 ? `, ${job.crashes} processes lost` : ''}`,
    ],
    ['priority', String(job.priority)],
    ['tags', job.tags.length > 0 ? job.tags.join(', ') : null],
    ['parent', job.parent],
    ['node', job.node],
    ['created', iso(job.createdAt)],
    ['run at', iso(job.runAt)],
    ['started', iso(job.startedAt)],
    ['finished', iso(job.finishedAt)],
    ['progress', job.progress && `${job.progress.percent} % ${job.progress.message ?? ''}`.trim()],
    ['input', JSON.stringify(job.input)],
    ['result', resultText(job)],
    ...job.errors.map(
      ({ at, attempt, name, message }) =>
        ['error', `attempt ${attempt} at ${at}: ${name}: ${message}`] as const,
    ),
  ]
  return pairs.flatMap(([key, value]) => (value === null ? [] : pairLines(key, value))).join('\n')
}

function pairLines(key: string, value: string): string[] {
  const shown =
    value.length > textMax
      ? `${value.slice(0, textMax)}… (${value.length} characters; --json has all)`
      : value
  const lines = wrapped(shown, widthMax - 10).slice(0, linesMax)
  return lines.map((line, at) => `${(at === 0 ? key : '').padEnd(10)}${line}`.trimEnd())
}

function resultText(job: Job): string | null {
  if (job.resultTooLarge) return 'too large to be kept'
  return job.state === 'completed' ? JSON.stringify(job.result) : null
}

function iso(at: Date | null): string | null {
  return at && !Number.isNaN(at.getTime()) ? at.toISOString() : null
}

const done: Partial<Record<JobsVerb, string>> = {
  retry: 'retried',
  cancel: 'cancelled',
  discard: 'discarded',
  reschedule: 'rescheduled',
}

/** '3 jobs', or 'more than 10,000 jobs'. */
export function matchingText({ matching, more }: Changed): string {
  const count = matching.toLocaleString('en')
  return `${more ? `at least ${count}` : count} ${matching === 1 && !more ? 'job' : 'jobs'}`
}

export function changeText(verb: JobsVerb, changed: Changed, dryRun: boolean): string {
  const reached = { ...changed, matching: changed.ids.length, more: false }
  const head = dryRun
    ? `would ${verb} ${matchingText(changed)}; nothing was changed`
    : `${done[verb]} ${matchingText(reached)}${verb === 'cancel' ? ' (those that run are asked to stop)' : ''}`
  const lines = [
    ...changed.ids,
    ...changed.skipped.map(
      ({ id, state }) => `${id} not: ${state === null ? 'there is no such job' : `it is ${state}`}`,
    ),
    ...changed.refused.map(
      ({ id, code, message }) => `${id} not: ${printable(message).slice(0, 300)} (${code})`,
    ),
  ]
  const shown = lines
    .slice(0, linesMax)
    .flatMap((line) => wrapped(line, widthMax - 2).map((part) => `  ${part}`))
  const rest = lines.length > linesMax ? [`  and ${lines.length - linesMax} more; --json names them all`] : []
  const again = changed.more && !dryRun ? ['there may be more: run it again'] : []
  return [head, ...shown, ...rest, ...again].join('\n')
}
