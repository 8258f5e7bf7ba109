import type { EndOptions, JobFilter, JobState, RescheduleOptions } from '../jobs/index.js'
import type { JobsVerb } from './flags.js'
import { UsageError } from './usage.js'

/** What was asked about jobs. Values that the library checks by itself are not checked here. */
export interface JobsCall {
  readonly kind: 'jobs'
  readonly verb: JobsVerb
  /** With all jobs that are named, by argument or by --id. */
  readonly filter: JobFilter
  readonly ending: Omit<EndOptions, 'dryRun'>
  readonly times: Omit<RescheduleOptions, 'dryRun'>
  readonly dryRun: boolean
  readonly yes: boolean
}

type Values = Readonly<Record<string, unknown>>

/** Far more than one call names by hand; beyond it the library refuses. */
const changeMax = 10_000

/** @throws UsageError */
export function readJobs(verb: JobsVerb, words: readonly string[], values: Values): JobsCall {
  const ids = [...words, ...((values.id as string[] | undefined) ?? [])].flatMap(commaList)
  if (verb === 'list' && words.length > 0)
    throw new UsageError('jobs list takes no arguments, only options; one job is shown by jobs show.')
  if ((verb === 'show' || verb === 'explain') && ids.length !== 1)
    throw new UsageError(`jobs ${verb} takes the id of one job.`)
  if (verb === 'reschedule' && !['delay', 'run-at', 'priority'].some((flag) => values[flag] !== undefined))
    throw new UsageError('jobs reschedule needs --delay, --run-at or --priority.')
  return {
    kind: 'jobs',
    verb,
    filter: readFilter(ids, values, verb === 'list' ? undefined : changeMax),
    ending: values.reason === undefined ? {} : { reason: values.reason as string },
    times: readTimes(values),
    dryRun: values['dry-run'] === true,
    yes: values.yes === true,
  }
}

function readFilter(ids: readonly string[], values: Values, limitDefault: number | undefined): JobFilter {
  const text = (key: string): Record<string, string> =>
    values[key] === undefined ? {} : { [key]: values[key] as string }
  const states = (values.state as string[] | undefined)?.flatMap(commaList)
  const limit = values.limit === undefined ? limitDefault : Number(values.limit)
  return {
    ...text('queue'),
    ...text('name'),
    ...text('tag'),
    ...text('parent'),
    ...text('before'),
    ...(states ? { state: states as JobState[] } : {}),
    ...(ids.length > 0 ? { ids } : {}),
    ...(limit === undefined ? {} : { limit }),
    ...(values.all === true ? { all: true } : {}),
  }
}

function readTimes(values: Values): JobsCall['times'] {
  const { delay, priority } = values as Record<string, string | undefined>
  const runAt = values['run-at'] as string | undefined
  return {
    ...(delay === undefined ? {} : { delay: numberOr(delay) as NonNullable<RescheduleOptions['delay']> }),
    ...(runAt === undefined ? {} : { runAt: readMoment(runAt) }),
    ...(priority === undefined
      ? {}
      : { priority: numberOr(priority) as NonNullable<RescheduleOptions['priority']> }),
  }
}

/** With its zone: that of the machine is seldom the one that is meant. */
function readMoment(text: string): Date {
  const moment = new Date(text)
  if (/^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:?\d\d)$/.test(text) && !Number.isNaN(moment.getTime())) return moment
  throw new UsageError('--run-at needs a time with its zone, such as 2030-12-24T18:00:00Z.')
}

function numberOr(text: string): number | string {
  return /^\d{1,15}$/.test(text) ? Number(text) : text
}

function commaList(text: string): string[] {
  return text.split(',').map((item) => item.trim()).filter((item) => item !== '') // prettier-ignore
}
