import { ForgeError } from './errors.js'

/**
 * The data gate. Strict where a caller can still mend it (enqueue: a typed error with the path of the offence),
 * forgiving where the work is done (results, errors, logs: cleaned and cut, so that finishing never fails).
 */
export interface GateLimits {
  readonly bytesMax: number
  readonly depthMax: number
}

// PostgreSQL refuses U+0000 and lone surrogates. With the u flag a pair is one code point, so this finds none of those.
const unstorableAll = /[\u0000\p{Surrogate}]/gu

/**
 * The JSON text of an input.
 * @throws ForgeError FORGE_INPUT_NOT_JSON (NaN, BigInt, cycle, U+0000, lone surrogate, Map, function …; names the path),
 * FORGE_INPUT_TOO_DEEP, FORGE_INPUT_TOO_LARGE
 */
export function encodeStrict(value: unknown, limits: GateLimits): string {
  if (value === undefined) return 'null'
  const json = stringifyChecked(value, limits)
  const bytes = Buffer.byteLength(json)
  if (bytes > limits.bytesMax) {
    throw new ForgeError('FORGE_INPUT_TOO_LARGE', `The input takes ${bytes} of ${limits.bytesMax} bytes.`)
  }
  return json
}

function stringifyChecked(value: unknown, limits: GateLimits): string {
  try {
    check(value, { path: [], above: new Set(), limits, left: limits.bytesMax })
    return JSON.stringify(value)
  } catch (error) {
    if (error instanceof ForgeError) throw error
    throw new ForgeError('FORGE_INPUT_NOT_JSON', 'A getter or toJSON of the input threw.', { cause: error })
  }
}

interface Walk {
  readonly path: (string | number)[]
  readonly above: Set<object>
  readonly limits: GateLimits
  /** Bytes that may still follow, counted low: an object that is met on many paths cannot make the walk endless. */
  left: number
}

function check(given: unknown, walk: Walk): void {
  // What most values of an input are.
  if (typeof given === 'string' && isStorable(given)) return spend(walk, given.length + 2)
  if (typeof given === 'boolean' || (typeof given === 'number' && Number.isFinite(given)))
    return spend(walk, 1)
  const { path, above, limits } = walk
  const value = jsonForm(given, String(path.at(-1) ?? ''))
  const offence = value === null && isBadDate(given) ? 'an invalid Date' : offenceOf(value)
  if (offence) throw new ForgeError('FORGE_INPUT_NOT_JSON', `At ${show(path)}: ${offence}.`)
  spend(walk, typeof value === 'string' ? value.length + 2 : 1)
  if (typeof value !== 'object' || value === null) return
  if (above.has(value)) throw new ForgeError('FORGE_INPUT_NOT_JSON', `At ${show(path)}: a cycle.`)
  if (path.length >= limits.depthMax) throw new ForgeError('FORGE_INPUT_TOO_DEEP', `At ${show(path)}.`)
  above.add(value)
  if (Array.isArray(value)) for (let at = 0; at < value.length; at++) checkEntry(at, value[at], walk)
  else for (const key of Object.keys(value)) checkEntry(key, (value as Record<string, unknown>)[key], walk)
  above.delete(value)
}

function checkEntry(key: string | number, inner: unknown, walk: Walk): void {
  // As in JSON an undefined property is left out; in an array it would silently turn into null.
  if (inner === undefined && typeof key === 'string') return
  walk.path.push(key)
  if (typeof key === 'string' && !isStorable(key)) {
    throw new ForgeError(
      'FORGE_INPUT_NOT_JSON',
      `At ${show(walk.path)}: a key with U+0000 or half a surrogate pair.`,
    )
  }
  if (typeof key === 'string') spend(walk, key.length + 3)
  check(inner, walk)
  walk.path.pop()
}

function spend(walk: Walk, bytes: number): void {
  walk.left -= bytes
  if (walk.left >= 0) return
  throw new ForgeError('FORGE_INPUT_TOO_LARGE', `The input takes more than ${walk.limits.bytesMax} bytes.`)
}

const boxes = ['Number', 'String', 'Boolean', 'BigInt', 'Symbol']
const lossyKinds = ['Map', 'Set', 'WeakMap', 'WeakSet', 'RegExp', 'Error', 'Promise', 'ArrayBuffer', 'Date']

function kindOf(value: object): string {
  return Object.prototype.toString.call(value).slice(8, -1)
}

/** What JSON.stringify looks at: the answer of toJSON, which it asks once, and what a box such as `new Number(1)` holds. */
function jsonForm(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return value
  const { toJSON } = value as { toJSON?: unknown }
  return unboxed(typeof toJSON === 'function' ? toJSON.call(value, key) : value)
}

/** An object or array as JSON itself makes them. */
const isPlain = (value: object): boolean =>
  Object.getPrototypeOf(value) === Object.prototype || Array.isArray(value)

function unboxed(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || isPlain(value)) return value
  return boxes.includes(kindOf(value)) ? value.valueOf() : value
}

/** JSON makes null of it. */
function isBadDate(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && kindOf(value) === 'Date' && Number.isNaN(Number(value))
  )
}

/** `value` is what JSON.stringify looks at, so a toJSON of it is not asked any more. */
function offenceOf(value: unknown): string | null {
  switch (typeof value) {
    case 'string':
      return !isStorable(value) ? 'text with U+0000 or half a surrogate pair' : null
    case 'number':
      return Number.isFinite(value) ? null : String(value)
    case 'bigint':
      return 'a BigInt; pass it as text'
    case 'undefined':
    case 'function':
    case 'symbol':
      return `a value of type ${typeof value}`
    default:
      return isLossy(value) ? `a ${kindOf(value as object)}, which JSON would empty` : null
  }
}

function isLossy(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || isPlain(value)) return false
  return lossyKinds.includes(kindOf(value)) || ArrayBuffer.isView(value)
}

function show(path: readonly (string | number)[]): string {
  const text = path
    .slice(0, 12)
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${key.slice(0, 40)}`))
    .join('')
  return `input${text}${path.length > 12 ? '…' : ''}`.replace(unstorableAll, '\uFFFD')
}

export interface Forgiven {
  /** JSON text; 'null' when the value was over the limit. */
  readonly json: string
  readonly tooLarge: boolean
}

/** The JSON text of anything at all; never throws. What JSON or PostgreSQL cannot carry is replaced, and marked. */
export function encodeForgiving(value: unknown, limits: GateLimits): Forgiven {
  try {
    const budget = { bytes: limits.bytesMax }
    const json = JSON.stringify(clean(value, limits.depthMax, { above: new Set(), budget })) ?? 'null'
    if (Buffer.byteLength(json) <= limits.bytesMax) return { json, tooLarge: false }
  } catch {
    // Over the budget: the marker says so.
  }
  return { json: 'null', tooLarge: true }
}

interface Cleaning {
  readonly above: Set<object>
  readonly budget: { bytes: number }
}

class OverBudget extends Error {}

function clean(given: unknown, depth: number, state: Cleaning): unknown {
  const value = tryRead(() => jsonForm(given, ''))
  state.budget.bytes -= typeof value === 'string' ? value.length + 2 : 1
  if (state.budget.bytes < 0) throw new OverBudget()
  if (typeof value === 'string') return storable(value)
  if (typeof value === 'bigint') return value.toString()
  if (typeof value === 'number') return Number.isFinite(value) ? value : null
  if (typeof value === 'function' || typeof value === 'symbol') return undefined
  if (typeof value !== 'object' || value === null) return value
  if (state.above.has(value)) return '[cycle]'
  if (depth <= 0) return '[too deep]'
  state.above.add(value)
  const result = cleanObject(value, depth - 1, state)
  state.above.delete(value)
  return result
}

/** A hostile proxy may throw wherever it is touched. */
function cleanObject(value: object, depth: number, state: Cleaning): unknown {
  try {
    if (Array.isArray(value)) return cleanArray(value, depth, state)
    if (value instanceof Error) return cleanRecord(value, ['name', 'message'], { depth, state })
    if (isLossy(value)) return `[${storable(kindOf(value))}]`
    return cleanRecord(value, Object.keys(value), { depth, state })
  } catch (error) {
    if (error instanceof OverBudget) throw error
    return unreadable
  }
}

/** By index, since a sparse array may be longer than anybody can wait for; the budget ends it. */
function cleanArray(value: readonly unknown[], depth: number, state: Cleaning): unknown[] {
  const out: unknown[] = []
  for (let index = 0; index < value.length; index++) {
    out.push(
      clean(
        tryRead(() => value[index]),
        depth,
        state,
      ) ?? null,
    )
  }
  return out
}

function cleanRecord(
  value: object,
  keys: readonly string[],
  { depth, state }: { readonly depth: number; readonly state: Cleaning },
): unknown {
  const out: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  for (const key of keys) {
    state.budget.bytes -= key.length + 3
    const inner = tryRead(() => (value as Record<string, unknown>)[key])
    out[storable(key)] = clean(inner, depth, state)
  }
  return out
}

const unreadable = '[unreadable]'

function tryRead(read: () => unknown): unknown {
  try {
    return read()
  } catch {
    return unreadable
  }
}

/** Text that PostgreSQL can hold: U+0000 and halves of surrogate pairs become U+FFFD. */
export function storable(text: string): string {
  return isStorable(text) ? text : text.replace(unstorableAll, '\uFFFD')
}

/** Whether PostgreSQL can hold this text: no U+0000, no half of a surrogate pair. */
export const isStorable = (text: string): boolean => text.isWellFormed() && !text.includes('\0')

/** The first `max` characters of storable text. */
export function storableText(value: unknown, max: number): string {
  const text = typeof value === 'string' ? value : String(tryRead(() => String(value)))
  return storable(text.length > max ? `${text.slice(0, max - 1)}…` : text)
}
