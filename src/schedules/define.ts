import type { JobContext, JobDefinition, JobRegistry } from '../jobs/index.js'
import { readDefinition } from '../jobs/index.js'
import { asRecord, invalidOption } from '../kernel/index.js'
import { Registry } from '../runtime/index.js'
import {
  checkScheduleName,
  type CronOptions,
  hashOf,
  type JobScheduleOptions,
  ownJobKnown,
  readSchedule,
  type ScheduleRule,
  type ScheduleSpec,
  type Tick,
} from './spec.js'

/** A schedule that code defines. */
export interface CodeSchedule {
  readonly name: string
  readonly hash: string
  readonly spec: ScheduleSpec
}

export class ScheduleRegistry extends Registry<CodeSchedule> {}

/** A schedule as it was defined; `node.crons` has what becomes of it. */
export interface Cron {
  readonly name: string
}

export interface DefineCron {
  /**
   * Defines a schedule with a job of its own: `run(tick, job)` on one of the worker nodes for each tick.
   * @throws ForgeError FORGE_CRON_INVALID, FORGE_TIMEZONE_UNKNOWN, FORGE_OPTION_…, FORGE_DURATION_INVALID, FORGE_INPUT_…;
   * DuplicateName in production
   */
  <In = unknown>(
    name: string,
    rule: ScheduleRule,
    options: CronOptions<In, (tick: Tick<In>, job: JobContext) => unknown>,
  ): Cron
  /** Defines a schedule that makes jobs of another definition. */
  (
    name: string,
    rule: ScheduleRule,
    options: Omit<JobScheduleOptions, 'job'> & {
      readonly job: Pick<JobDefinition<never, unknown>, 'name'> | string
    },
  ): Cron
}

export function createDefineCron(schedules: ScheduleRegistry, jobs: JobRegistry): DefineCron {
  return (given: unknown, rule: unknown, options: unknown): Cron => {
    const name = checkScheduleName(given)
    const spec = readSchedule(name, rule, options)
    if (spec.wrapped) jobs.add(readOwnJob(name, options))
    schedules.add(Object.freeze({ name, spec, hash: hashOf(spec) }))
    return Object.freeze({ name })
  }
}

/** What a tick writes as the input of a schedule's own job. */
interface Wrapped {
  readonly scheduledFor: string
  readonly late: number
  readonly input: unknown
}

function readOwnJob(name: string, options: unknown): ReturnType<typeof readDefinition> {
  const record = asRecord(options, `The options of schedule '${name}'`)
  const { run } = record
  if (typeof run !== 'function') throw invalidOption(`run of schedule '${name}'`, 'must be a function')
  const own = Object.entries(record).filter(
    ([key]) => ownJobKnown.includes(key) || key === 'queue' || key === 'priority',
  )
  const call = run.bind(record) as (tick: Tick, job: unknown) => unknown
  return readDefinition(name, {
    ...Object.fromEntries(own),
    run: ({ scheduledFor, late, input }: Wrapped, job: unknown) =>
      call(Object.freeze({ name, scheduledFor: new Date(scheduledFor), late, input }), job),
  })
}
