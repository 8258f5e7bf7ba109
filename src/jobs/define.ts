import type { StandardSchemaV1 } from '@standard-schema/spec'
import { asRecord, type Duration, durationMs, invalidOption, unknownOption } from '../kernel/index.js'
import { checkCapability, Registry } from '../runtime/index.js'
import { heard, type Keep, priorities, type Priority, type RetryPolicy } from './job.js'
import { type ConcurrencyOptions, type Limits, type RateOptions, readLimits } from './limits.js'
import { checkName } from './names.js'
import { readKeep } from './options.js'
import { readUnique, type UniqueOptions, type UniqueSpec } from './unique.js'

/** How failed attempts of a job are retried. */
export interface RetryOptions {
  /** All attempts, the first included. 1 to 1,000; default 5. */
  readonly attempts?: number
  /**
   * Default 'exponential'. A function gives the delay itself, without jitter and cut only by a `max` that is given: `attempt` is the
   * number of the one that failed, from 1. What it throws, or what is no duration, counts as 'exponential'.
   */
  readonly backoff?: 'fixed' | 'linear' | 'exponential' | ((attempt: number, error: unknown) => Duration)
  /** First delay; default '1s'. */
  readonly base?: Duration
  /** Longest delay; default '5m'. */
  readonly max?: Duration
  /** Random share of the delay, 0 to 1; default 0.25. */
  readonly jitter?: number
  /**
   * Called with what the handler threw; false gives the job up at once. One that throws, or answers with a promise, counts
   * as true. Default: always retry.
   */
  readonly when?: (error: unknown) => boolean
}

/** Everything of a definition but its schema and its handler. `In`: the input as `run` gets it. */
export interface JobSettings<In = unknown> {
  /** Default 'default'. */
  readonly queue?: string
  /** background 0, low 25, normal 50, high 75, critical 100, or a whole number from 0 to 100. Default normal. */
  readonly priority?: Priority
  readonly retry?: RetryOptions
  /** How long one attempt may run before its signal aborts and it counts as failed. Default '10m'. */
  readonly timeout?: Duration
  /** Only nodes that declare this capability run it. */
  readonly capability?: string
  /** At most one job per key: see `UniqueOptions`. Default: none is unique. */
  readonly unique?: UniqueOptions<In>
  /** How many of its jobs run at once in the whole cluster, or of each key. */
  readonly concurrency?: ConcurrencyOptions<In>
  /** How many of its runs become free to begin per time in the whole cluster, or of each key. */
  readonly rate?: RateOptions<In>
  /** How long finished jobs are kept, over option `retention`; 0 keeps nothing. */
  readonly keep?: { readonly completed?: Duration; readonly discarded?: Duration }
}

/** A definition as the engine uses it: checked, in milliseconds, with nothing optional. */
export interface JobSpec {
  readonly name: string
  readonly queue: string
  readonly priority: number
  readonly retry: RetryPolicy
  readonly timeoutMs: number
  readonly capability: string
  readonly limits: Limits
  readonly keep: Partial<Keep>
  readonly unique: UniqueSpec | null
  readonly input: StandardSchemaV1 | undefined
  readonly output: StandardSchemaV1 | undefined
  /** Called with the parsed input and a `JobContext`. */
  readonly run: (input: unknown, job: unknown) => unknown
}

const known = [
  'input',
  'output',
  'queue',
  'priority',
  'retry',
  'timeout',
  'capability',
  'unique',
  'concurrency',
  'rate',
  'keep',
  'run',
]
const retryKnown = ['attempts', 'backoff', 'base', 'max', 'jitter', 'when']

/**
 * Checks a definition.
 * @throws ForgeError FORGE_JOB_NAME_INVALID, FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID, FORGE_DURATION_INVALID
 */
export function readDefinition(name: unknown, definition: unknown): JobSpec {
  const job = checkName(name, 'job')
  const record = asRecord(definition, `The definition of '${job}'`)
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(`${job}.${key}`, known)
  if (typeof record.run !== 'function') throw invalidOption(`${job}.run`, 'must be a function')
  return Object.freeze({
    name: job,
    queue: record.queue === undefined ? 'default' : checkName(record.queue, 'queue'),
    priority: readPriority(record.priority ?? 'normal', `${job}.priority`),
    retry: readRetry(record.retry, `${job}.retry`),
    timeoutMs: readTimeout(record.timeout, `${job}.timeout`),
    capability:
      record.capability === undefined ? '' : checkCapability(record.capability, `${job}.capability`),
    limits: readLimits(record, job),
    keep: readKeep(record.keep, `${job}.keep`),
    unique: readUnique(record.unique, `${job}.unique`),
    input: readSchema(record.input, `${job}.input`),
    output: readSchema(record.output, `${job}.output`),
    run: record.run.bind(record) as JobSpec['run'],
  })
}

/** @throws ForgeError FORGE_OPTION_INVALID */
export function readPriority(value: unknown, name: string): number {
  const number =
    typeof value === 'string' && Object.hasOwn(priorities, value) ? priorities[value as 'low'] : value
  if (Number.isInteger(number) && (number as number) >= 0 && (number as number) <= 100)
    return number as number
  throw invalidOption(
    name,
    `must be one of ${Object.keys(priorities).join(', ')}, or a whole number from 0 to 100`,
  )
}

function readTimeout(value: unknown, name: string): number {
  const ms = durationMs(value ?? '10m', name)
  if (ms < 1) throw invalidOption(name, 'must be at least 1 ms')
  return ms
}

function readRetry(value: unknown, name: string): RetryPolicy {
  const record = asRecord(value, name)
  for (const key of Object.keys(record))
    if (!retryKnown.includes(key)) throw unknownOption(`${name}.${key}`, retryKnown)
  const { attempts = 5, backoff = 'exponential', jitter = 0.25, when = () => true } = record
  if (!Number.isInteger(attempts) || (attempts as number) < 1 || (attempts as number) > 1_000) {
    throw invalidOption(`${name}.attempts`, 'must be a whole number from 1 to 1000')
  }
  const own = typeof backoff === 'function'
  if (!own && !['fixed', 'linear', 'exponential'].includes(backoff as string)) {
    throw invalidOption(`${name}.backoff`, "must be 'fixed', 'linear', 'exponential' or a function")
  }
  if (typeof jitter !== 'number' || !(jitter >= 0 && jitter <= 1))
    throw invalidOption(`${name}.jitter`, 'must be 0 to 1')
  if (typeof when !== 'function') throw invalidOption(`${name}.when`, 'must be a function')
  return {
    attempts: attempts as number,
    kind: own ? 'exponential' : (backoff as RetryPolicy['kind']),
    delay: own ? capped(backoff as OwnBackoff, record.max, name) : null,
    baseMs: durationMs(record.base ?? '1s', `${name}.base`),
    maxMs: durationMs(record.max ?? '5m', `${name}.max`),
    jitter,
    when: when as RetryPolicy['when'],
  }
}

type OwnBackoff = (attempt: number, error: unknown) => Duration

/** A function says what it means: without a `max` of its own, nothing cuts it. */
function capped(
  backoff: OwnBackoff,
  max: unknown,
  name: string,
): (attempt: number, error: unknown) => number {
  const maxMs = max === undefined ? Number.POSITIVE_INFINITY : durationMs(max, `${name}.max`)
  return (attempt, error) => Math.min(durationMs(heard(backoff(attempt, error))), maxMs)
}

function readSchema(value: unknown, name: string): StandardSchemaV1 | undefined {
  if (value === undefined || isSchema(value)) return value
  throw invalidOption(name, 'must be a Standard Schema (zod, valibot, arktype …)')
}

/** Schemas are objects, or functions that carry the property (arktype). */
function isSchema(value: unknown): value is StandardSchemaV1 {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false
  const standard: unknown = '~standard' in value ? value['~standard'] : undefined
  return typeof standard === 'object' && standard !== null && 'validate' in standard
}

/** The definitions of one forge instance. */
export class JobRegistry extends Registry<JobSpec> {}
