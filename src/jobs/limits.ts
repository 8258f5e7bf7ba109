import { asRecord, type Duration, durationMs, invalidOption, unknownOption } from '../kernel/index.js'
import { keyBy } from './unique.js'

/** How many jobs of a definition run at once in the whole cluster. */
export interface ConcurrencyOptions<In> {
  /** 1 to 10,000. */
  readonly limit: number
  /** Each key has a limit of its own. Called at enqueue with the parsed input, as `run` gets it. */
  readonly by?: (input: In) => string | number
}

/** How many runs of a definition become free to begin within any stretch of time, in the whole cluster. */
export interface RateOptions<In> {
  /** 1 to 100,000. */
  readonly limit: number
  /** 1 ms or more. */
  readonly per: Duration
  /** Each key has a limit of its own. Called at enqueue with the parsed input, as `run` gets it. */
  readonly by?: (input: In) => string | number
}

interface Limit {
  readonly limit: number
  readonly keyed: boolean
  readonly by?: (input: unknown) => unknown
}

/** The limits of a definition, checked. */
export interface Limits {
  readonly concurrency?: Limit
  readonly rate?: Limit & { readonly perMs: number }
}

/** Also of queues: the limit option of one. */
export const concurrencyLimitMax = 10_000
const rateLimitMax = 100_000

/** @throws ForgeError FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID, FORGE_DURATION_INVALID */
export function readLimits(definition: Record<string, unknown>, job: string): Limits {
  const { concurrency, rate } = definition
  return {
    ...(concurrency === undefined ? {} : { concurrency: readConcurrency(concurrency, `${job}.concurrency`) }),
    ...(rate === undefined ? {} : { rate: readRate(rate, `${job}.rate`) }),
  }
}

function readConcurrency(value: unknown, name: string): Limit {
  const record = readKnown(value, name, ['limit', 'by'])
  return readLimit(record, name, concurrencyLimitMax)
}

function readRate(value: unknown, name: string): Limit & { readonly perMs: number } {
  const record = readKnown(value, name, ['limit', 'per', 'by'])
  const perMs = durationMs(record.per, `${name}.per`)
  if (perMs < 1) throw invalidOption(`${name}.per`, 'must be at least 1 ms')
  return { ...readLimit(record, name, rateLimitMax), perMs }
}

function readKnown(value: unknown, name: string, known: readonly string[]): Record<string, unknown> {
  const record = asRecord(value, name)
  for (const key of Object.keys(record))
    if (!known.includes(key)) throw unknownOption(`${name}.${key}`, known)
  return record
}

function readLimit(record: Record<string, unknown>, name: string, max: number): Limit {
  const { by } = record
  if (by !== undefined && typeof by !== 'function') throw invalidOption(`${name}.by`, 'must be a function')
  const limit = readWhole(record.limit, `${name}.limit`, max)
  return by === undefined ? { limit, keyed: false } : { limit, keyed: true, by: by as Limit['by'] & object }
}

/** @throws ForgeError FORGE_OPTION_INVALID for anything but a whole number from 1 to `max` */
export function readWhole(value: unknown, name: string, max: number): number {
  if (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= max) return value as number
  throw invalidOption(name, `must be a whole number from 1 to ${max}`)
}

/** What is known of a job when it is enqueued. */
export interface Limited {
  readonly queue: string
  /** Given with the enqueue: stands for what `by` would say. */
  readonly key?: string | undefined
  /** Parsed, as `run` will get it. */
  readonly input: unknown
  /** The queue has a limit in the whole cluster. */
  readonly queueLimited: boolean
}

/**
 * The gates that a job passes before each run, in order; null for a job without limits, which pays nothing for them.
 * `=` sets the key apart, since names may hold slashes and never that.
 * @throws ForgeError FORGE_KEY_INVALID when `by` throws, or its key is none
 */
export function gatesOf(
  spec: { readonly name: string; readonly limits: Limits },
  job: Limited,
): string[] | null {
  const { concurrency, rate } = spec.limits
  if (!concurrency && !rate && !job.queueLimited) return null
  const gates: string[] = []
  if (concurrency)
    gates.push(classes.concurrency(spec.name) + keyOf(concurrency, job, `${spec.name}.concurrency`))
  if (rate) gates.push(classes.rate(spec.name) + keyOf(rate, job, `${spec.name}.rate`))
  if (job.queueLimited) gates.push(classes.queue(job.queue))
  return gates
}

/** Classes of gates: each has one limit. */
export const classes = {
  concurrency: (job: string): string => `c/${job}`,
  rate: (job: string): string => `r/${job}`,
  queue: (queue: string): string => `q/${queue}`,
} as const

function keyOf(limit: Limit, job: Limited, name: string): string {
  if (!limit.by) return ''
  return `=${job.key ?? keyBy(limit.by, job.input, `${name}.by`)}`
}
