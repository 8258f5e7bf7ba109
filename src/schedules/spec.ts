import { createHash } from 'node:crypto'
import type { JobSettings, Priority } from '../jobs/index.js'
import { checkName, readPriority } from '../jobs/index.js'
import {
  asRecord,
  type Duration,
  durationMs,
  encodeStrict,
  invalidOption,
  isStorable,
  unknownOption,
} from '../kernel/index.js'
import { boundedBy, calendarOf, everyOf, onceOf, type Times } from './calendar.js'
import { parseExpression } from './expression.js'
import { checkZone } from './zone.js'

/**
 * When a schedule fires: a cron expression of 5 or 6 fields or a shorthand such as `@daily`; every so often, counted from
 * `start`, or else from 1970 (so '15m' falls on the quarter hours); or once.
 */
export type ScheduleRule = string | { readonly every: Duration } | { readonly at: Date | string }

/** What becomes of ticks that nobody fired in time: within 15 s of their moment, on any node. */
export type Missed =
  | 'none'
  | 'last'
  | 'all'
  | {
      readonly policy: 'last' | 'all'
      /** At most so many of them, the latest. 1 to 1,000, default 100. */
      readonly limit?: number
      /** Only those of the last while. Default: however long ago. */
      readonly window?: Duration
    }

export interface ScheduleOptions {
  /** A name of the IANA time zone database. Default 'UTC'. */
  readonly timezone?: string
  /** Default 'none'. */
  readonly missed?: Missed
  /**
   * When the job of the tick before is unfinished: `allow` makes another beside it, `skip` makes none, `queue` waits with it
   * until that job has ended. Default 'allow'.
   */
  readonly overlap?: 'allow' | 'skip' | 'queue'
  /** The job becomes due up to so much later than the tick, by chance. Default 0. */
  readonly jitter?: Duration
  /** No tick is planned before. */
  readonly start?: Date | string
  /** No tick is planned after. */
  readonly end?: Date | string
  /** Default null. At most 100 kB as JSON. */
  readonly input?: unknown
  /** Default: that of the job. */
  readonly queue?: string
  /** Default: that of the job. */
  readonly priority?: Priority
}

/** A schedule for a job that is defined by itself. */
export interface JobScheduleOptions extends ScheduleOptions {
  /** The definition, or its name. It is given `input`. */
  readonly job: { readonly name: string } | string
  /** For definitions that are unique or limited by key. */
  readonly key?: string
}

/** One tick, as `run` is given it. */
export interface Tick<In = unknown> {
  readonly name: string
  /** The moment that was planned. */
  readonly scheduledFor: Date
  /** Milliseconds from that moment until it was fired, by the clock of the database. */
  readonly late: number
  readonly input: In
}

/** A schedule with a job of its own, of the same name. */
export interface CronOptions<In, Run>
  extends ScheduleOptions, Pick<JobSettings, 'retry' | 'timeout' | 'capability' | 'keep'> {
  readonly input?: In
  readonly run: Run
}

/** What is stored of a schedule: checked, in milliseconds since 1970, with nothing optional. */
export interface ScheduleSpec {
  readonly rule: { readonly cron: string } | { readonly everyMs: number } | { readonly atMs: number }
  readonly zone: string
  readonly missed: 'none' | 'last' | 'all'
  readonly limit: number
  readonly windowMs: number | null
  readonly overlap: 'allow' | 'skip' | 'queue'
  readonly jitterMs: number
  readonly startMs: number | null
  readonly endMs: number | null
  readonly job: string
  /** The job is the schedule's own: its input says the tick as well. */
  readonly wrapped: boolean
  readonly input: unknown
  readonly queue: string | null
  readonly priority: number | null
  readonly key: string | null
}

const known = [
  'timezone',
  'missed',
  'overlap',
  'jitter',
  'start',
  'end',
  'input',
  'queue',
  'priority',
  'job',
  'key',
]
export const ownJobKnown = ['run', 'retry', 'timeout', 'capability', 'keep']

const limitDefault = 100
const limitMax = 1_000
const everyMsMin = 1_000
const inputLimits = { bytesMax: 100_000, depthMax: 100 }

/** The name of a schedule stands in tags, in locks and in the names of its jobs. */
export function checkScheduleName(name: unknown): string {
  if (typeof name === 'string' && /^[a-z0-9][a-z0-9._:/-]{0,93}$/i.test(name)) return name
  throw invalidOption(
    'The name of a schedule',
    'must be 1 to 94 letters, digits, dots, dashes, underscores, colons and slashes',
  )
}

/**
 * Checks a schedule.
 * @throws ForgeError FORGE_CRON_INVALID, FORGE_TIMEZONE_UNKNOWN, FORGE_OPTION_…, FORGE_DURATION_INVALID, FORGE_INPUT_…
 */
export function readSchedule(name: string, rule: unknown, options: unknown): ScheduleSpec {
  const record = asRecord(options, `The options of schedule '${name}'`)
  const own = record.run !== undefined
  const all = own ? [...known.filter((key) => key !== 'job' && key !== 'key'), ...ownJobKnown] : known
  for (const key of Object.keys(record)) if (!all.includes(key)) throw unknownOption(`${name}.${key}`, all)
  const startMs = readMoment(record.start, `${name}.start`)
  const endMs = readMoment(record.end, `${name}.end`)
  if (startMs !== null && endMs !== null && endMs < startMs)
    throw invalidOption(`${name}.end`, 'must not be before its start')
  const spec = {
    rule: readRule(name, rule),
    zone: checkZone(record.timezone ?? 'UTC'),
    ...readMissed(name, record.missed ?? 'none'),
    overlap: readOneOf(record.overlap ?? 'allow', ['allow', 'skip', 'queue'] as const, `${name}.overlap`),
    jitterMs: durationMs(record.jitter ?? 0, `${name}.jitter`),
    startMs,
    endMs,
    job: own ? name : readJob(name, record.job),
    wrapped: own,
    input: JSON.parse(encodeStrict(record.input ?? null, inputLimits)) as unknown,
    queue: record.queue === undefined ? null : checkName(record.queue, 'queue'),
    priority: record.priority === undefined ? null : readPriority(record.priority, `${name}.priority`),
    key: readName(record.key, `${name}.key`),
  }
  if (!('atMs' in spec.rule)) return spec
  if (spec.jitterMs > 0 || startMs !== null || endMs !== null)
    throw invalidOption(`jitter, start and end of '${name}'`, 'do not go with { at }')
  return spec
}

function readRule(name: string, rule: unknown): ScheduleSpec['rule'] {
  if (typeof rule === 'string') {
    parseExpression(rule)
    return { cron: rule.trim() }
  }
  const record = asRecord(rule, `The rule of schedule '${name}'`)
  const [key, ...others] = Object.keys(record)
  if (others.length > 0 || (key !== 'every' && key !== 'at'))
    throw invalidOption(`The rule of schedule '${name}'`, 'must be a cron expression, { every } or { at }')
  if (key === 'at') {
    const atMs = readMoment(record.at, `${name}.at`)
    if (atMs !== null) return { atMs }
  }
  const everyMs = durationMs(record.every, `${name}.every`)
  if (everyMs < everyMsMin) throw invalidOption(`${name}.every`, 'must be at least 1 s')
  return { everyMs }
}

function readMissed(name: string, value: unknown): Pick<ScheduleSpec, 'missed' | 'limit' | 'windowMs'> {
  const policies = ['none', 'last', 'all'] as const
  if (typeof value === 'string')
    return { missed: readOneOf(value, policies, `${name}.missed`), limit: limitDefault, windowMs: null }
  const record = asRecord(value, `${name}.missed`)
  const parts = ['policy', 'limit', 'window']
  for (const key of Object.keys(record))
    if (!parts.includes(key)) throw unknownOption(`${name}.missed.${key}`, parts)
  const { policy, limit = limitDefault, window } = record
  if (!Number.isInteger(limit) || (limit as number) < 1 || (limit as number) > limitMax)
    throw invalidOption(`${name}.missed.limit`, `must be a whole number from 1 to ${limitMax}`)
  return {
    missed: readOneOf(policy, ['last', 'all'] as const, `${name}.missed.policy`),
    limit: limit as number,
    windowMs: window === undefined ? null : durationMs(window, `${name}.missed.window`),
  }
}

function readOneOf<const T extends string>(value: unknown, words: readonly T[], name: string): T {
  if (words.includes(value as T)) return value as T
  throw invalidOption(name, `must be ${words.map((word) => `'${word}'`).join(', ')}`)
}

/** With an offset in text: a moment, whatever zone this process is in. */
export function readMoment(value: unknown, name: string): number | null {
  if (value === undefined) return null
  const ms =
    value instanceof Date
      ? value.getTime()
      : typeof value === 'string' && /T.*(Z|[+-]\d\d:?\d\d)$/i.test(value.slice(0, 40))
        ? Date.parse(value)
        : Number.NaN
  if (ms >= 0 && ms < Date.UTC(2200, 0, 1)) return Math.floor(ms)
  throw invalidOption(name, "must be a Date, or text with an offset such as '2027-01-31T09:00:00+01:00'")
}

function readJob(name: string, job: unknown): string {
  const found: unknown = typeof job === 'object' && job !== null && 'name' in job ? job.name : job
  if (typeof found === 'string' && found.length >= 1 && found.length <= 200 && isStorable(found)) return found
  throw invalidOption(`job of schedule '${name}'`, 'must be a job definition or its name')
}

function readName(value: unknown, name: string): string | null {
  if (value === undefined) return null
  if (typeof value === 'string' && value.length >= 1 && Buffer.byteLength(value) <= 200 && isStorable(value))
    return value
  throw invalidOption(name, 'must be text of 1 to 200 bytes')
}

/** Tells definitions apart; their names are no part of it, so that a renaming shows. */
export function hashOf(spec: ScheduleSpec): string {
  const { job, ...rest } = spec
  const said = JSON.stringify({ ...rest, job: spec.wrapped ? null : job })
  return createHash('sha256').update(said).digest('hex').slice(0, 32)
}

const cached = new Map<string, Times>()
const cachedMax = 20_000

/** The moments of a schedule. */
export function timesOf(spec: ScheduleSpec): Times {
  const key = JSON.stringify([spec.rule, spec.zone, spec.startMs, spec.endMs])
  let times = cached.get(key)
  if (times === undefined) {
    times = boundedBy(unboundedTimes(spec), spec.startMs, spec.endMs)
    if (cached.size >= cachedMax) cached.clear()
    cached.set(key, times)
  }
  return times
}

function unboundedTimes({ rule, zone, startMs }: ScheduleSpec): Times {
  if ('cron' in rule) return calendarOf(parseExpression(rule.cron), zone)
  return 'everyMs' in rule ? everyOf(rule.everyMs, startMs ?? 0) : onceOf(rule.atMs)
}

/** The rule in words of the one who wrote it. */
export function ruleText({ rule }: ScheduleSpec): string {
  if ('cron' in rule) return rule.cron
  return 'everyMs' in rule ? `every ${rule.everyMs / 1_000} s` : `at ${new Date(rule.atMs).toISOString()}`
}
