import {
  asRecord,
  type Duration,
  durationMs,
  ForgeError,
  invalidOption,
  messageOf,
  storable,
  unknownOption,
} from '../kernel/index.js'
import { heard } from './job.js'

/** What a second job of one key comes to. */
export type OnConflict = 'skip' | 'replace' | 'debounce'

/** One job per key. What the answer of enqueue says is described at `JobHandle.reason`. */
export interface UniqueOptions<In = unknown> {
  /**
   * The key of an input: text of 1 to 200 bytes, or a finite number. Called once per enqueue, with the parsed input, as
   * `run` will get it. Default: a hash of the input, so that equal inputs are one.
   */
  readonly by?: (input: In) => string | number
  /**
   * How long the key is taken, counted from the enqueue, and anew from a retry of the finished job, whether the job is
   * finished or not. Absent: until it is finished. With 'debounce' it is the time of quiet, and required.
   */
  readonly for?: Duration
  /**
   * 'skip' (default): the standing job stays as it is. 'replace': while it does not run it takes over the new input,
   * priority, time, queue and tags, with fresh attempts. 'debounce': the same, and it runs `for` after the last call.
   */
  readonly onConflict?: OnConflict
  /** With 'debounce': the job runs so long after the first call at the latest. Default: no limit. */
  readonly maxWait?: Duration
}

/** `unique` of a definition as the engine uses it. */
export interface UniqueSpec {
  readonly by: ((input: unknown) => unknown) | null
  readonly mode: OnConflict
  readonly windowMs: number | null
  readonly maxWaitMs: number | null
}

const known = ['by', 'for', 'onConflict', 'maxWait']
const modes = ['skip', 'replace', 'debounce']
const keyBytesMax = 200

/** @throws ForgeError FORGE_OPTION_INVALID, FORGE_OPTION_UNKNOWN, FORGE_DURATION_INVALID */
export function readUnique(value: unknown, name: string): UniqueSpec | null {
  if (value === undefined) return null
  const record = asRecord(value, name)
  for (const key of Object.keys(record))
    if (!known.includes(key)) throw unknownOption(`${name}.${key}`, known)
  const { by, onConflict = 'skip', for: window, maxWait } = record
  if (by !== undefined && typeof by !== 'function') throw invalidOption(`${name}.by`, 'must be a function')
  if (!modes.includes(onConflict as string))
    throw invalidOption(`${name}.onConflict`, `must be one of ${modes.join(', ')}`)
  if (onConflict === 'debounce' && window === undefined)
    throw invalidOption(`${name}.for`, "is needed with onConflict: 'debounce'")
  if (onConflict !== 'debounce' && maxWait !== undefined)
    throw invalidOption(`${name}.maxWait`, "is only for onConflict: 'debounce'")
  return {
    by: (by as UniqueSpec['by'] | undefined) ?? null,
    mode: onConflict as OnConflict,
    windowMs: readSpan(window, `${name}.for`),
    maxWaitMs: readSpan(maxWait, `${name}.maxWait`),
  }
}

function readSpan(value: unknown, name: string): number | null {
  if (value === undefined) return null
  const ms = durationMs(value, name)
  if (ms < 1) throw invalidOption(name, 'must be at least 1 ms')
  return ms
}

/**
 * What `by` says about an input, as text.
 * @throws ForgeError FORGE_KEY_INVALID when it throws, or gives anything but text of 1 to 200 bytes or a finite number
 */
export function keyBy(by: (input: unknown) => unknown, input: unknown, name: string): string {
  let key: unknown
  try {
    key = by(input)
  } catch (error) {
    throw new ForgeError('FORGE_KEY_INVALID', `${name} threw: ${messageOf(error)}.`, { cause: error })
  }
  const problem = problemOf(key)
  if (problem) throw new ForgeError('FORGE_KEY_INVALID', `${name} gave ${problem}.`)
  return String(key)
}

function problemOf(key: unknown): string | null {
  if (typeof key === 'number') return Number.isFinite(key) ? null : String(key)
  if (typeof key === 'string') return isKey(key) ? null : describe(key)
  return heard(key) instanceof Promise ? 'a promise' : `a value of type ${key === null ? 'null' : typeof key}`
}

function describe(key: string): string {
  if (key === '') return 'empty text'
  const bytes = Buffer.byteLength(key)
  return bytes > keyBytesMax ? `${bytes} bytes of text` : 'text with U+0000 or half a surrogate pair'
}

/** Text that can be a key: 1 to 200 bytes that PostgreSQL can hold. */
export function isKey(value: unknown): value is string {
  return isText(value, keyBytesMax)
}

export function isText(value: unknown, bytesMax: number): value is string {
  if (typeof value !== 'string' || value === '' || value.length > bytesMax) return false
  return Buffer.byteLength(value) <= bytesMax && storable(value) === value
}
