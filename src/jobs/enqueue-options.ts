import type { Tx } from '../database/index.js'
import { asRecord, type Duration, durationMs, invalidOption, isUuid, unknownOption } from '../kernel/index.js'
import { readPriority } from './define.js'
import type { Priority } from './job.js'
import { checkName } from './names.js'
import { isKey, isText } from './unique.js'

/** Options of one enqueue call. */
export interface EnqueueOptions {
  /** Your open transaction: the job exists when it commits, and never if it does not. */
  readonly tx?: Tx
  /** Not before so long from now, by the database clock. */
  readonly delay?: Duration
  /** Not before this moment. Not together with `delay`; neither goes with a debounced definition. */
  readonly runAt?: Date
  readonly priority?: Priority
  readonly queue?: string
  /** A UUID of your own (version 7 is best): repeating the call with it is harmless. */
  readonly id?: string
  /**
   * Stands in for what the `by` functions of the definition would give, for unique, concurrency and rate alike. Text of
   * 1 to 200 bytes. Only for definitions that have one of the three.
   */
  readonly key?: string
  /** At most 20 labels of 1 to 100 bytes each. */
  readonly tags?: readonly string[]
  /** The id of the job that caused this one. `job.enqueue` and `job.again` set it by themselves. */
  readonly parent?: string
}

/** The options of a call, checked; what is absent comes from the definition. */
export interface EnqueueWish {
  readonly delayMs: number | null
  readonly runAt: Date | null
  readonly priority: number | undefined
  readonly queue: string | undefined
  readonly id: string | undefined
  readonly key: string | undefined
  readonly tags: readonly string[] | null
  readonly parent: string | null
}

const known = ['tx', 'delay', 'runAt', 'priority', 'queue', 'id', 'key', 'tags', 'parent']
const tagsMax = 20
const tagBytesMax = 100

const nothing: EnqueueWish = Object.freeze({
  delayMs: null,
  runAt: null,
  priority: undefined,
  queue: undefined,
  id: undefined,
  key: undefined,
  tags: null,
  parent: null,
})

/** @throws ForgeError FORGE_OPTION_…, FORGE_DURATION_INVALID, FORGE_JOB_NAME_INVALID */
export function readEnqueueOptions(options: unknown): EnqueueWish {
  if (options === undefined) return nothing
  const record = asRecord(options, 'The options of enqueue')
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  const { delay, runAt, priority, queue, key } = record
  if (delay !== undefined && runAt !== undefined)
    throw invalidOption('Options delay and runAt', 'exclude each other')
  if (runAt !== undefined && !isUsableDate(runAt)) throw invalidOption('Option runAt', 'must be a valid Date')
  if (key !== undefined && !isKey(key)) throw invalidOption('Option key', 'must be text of 1 to 200 bytes')
  return {
    delayMs: delay === undefined ? null : durationMs(delay, 'Option delay'),
    runAt: (runAt as Date | undefined) ?? null,
    priority: priority === undefined ? undefined : readPriority(priority, 'Option priority'),
    queue: queue === undefined ? undefined : checkName(queue, 'queue'),
    id: readId(record.id, 'id'),
    key,
    tags: readTags(record.tags),
    parent: readId(record.parent, 'parent') ?? null,
  }
}

function readId(value: unknown, name: string): string | undefined {
  if (value === undefined) return undefined
  if (!isUuid(value)) throw invalidOption(`Option ${name}`, 'must be a UUID')
  return value.toLowerCase()
}

function readTags(value: unknown): readonly string[] | null {
  if (value === undefined) return null
  const right =
    Array.isArray(value) &&
    value.length <= tagsMax &&
    Array.from(value as unknown[]).every((tag) => isText(tag, tagBytesMax))
  if (!right)
    throw invalidOption(
      'Option tags',
      `must be a list of at most ${tagsMax} texts of 1 to ${tagBytesMax} bytes`,
    )
  return value.length === 0 ? null : [...(value as string[])]
}

function isUsableDate(value: unknown): boolean {
  // Between 1970 and 2200: PostgreSQL's own limits are wider, but a job there is a mistake of units.
  return value instanceof Date && value.getTime() >= 0 && value.getTime() < 7_258_118_400_000
}
