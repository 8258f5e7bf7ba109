import { durationMs } from './duration.js'
import { ForgeError } from './errors.js'

/**
 * Options are data: each is one `OptionSpec` with its meaning, unit, default and cost, so that the checker, the
 * environment reader and the documentation test all read the same table.
 */
export interface OptionSpec<T> {
  /** Meaning, and what it costs to raise it. One or two sentences; stands in docs/options.md. */
  readonly doc: string
  readonly default: T
  /** How the default is written in the documentation. */
  readonly shows: string
  /** Checks and normalises a given value. Throws ForgeError FORGE_OPTION_INVALID or a more exact code. */
  readonly read: (value: unknown, name: string) => T
  /** Turns the text of an environment variable into a value for `read`; absent: no environment equivalent. */
  readonly fromText?: (text: string) => unknown
}

export type OptionTable = { readonly [name: string]: OptionSpec<unknown> | OptionTable }

export type Resolved<Table> = {
  readonly [Name in keyof Table]: Table[Name] extends OptionSpec<infer T> ? T : Resolved<Table[Name]>
}

export function isSpec(entry: OptionSpec<unknown> | OptionTable): entry is OptionSpec<unknown> {
  return typeof (entry as OptionSpec<unknown>).read === 'function'
}

/**
 * Checks the given options against the table; what is not given comes from the environment, then from the default.
 * @throws ForgeError FORGE_OPTION_UNKNOWN (suggests the nearest name), FORGE_OPTION_INVALID, FORGE_DURATION_INVALID …
 */
export function resolveOptions<Table extends OptionTable>(
  table: Table,
  given: unknown,
  env: Readonly<Record<string, string | undefined>>,
): Resolved<Table> {
  return resolveLevel(table, given, { env, path: '' }) as Resolved<Table>
}

interface Level {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly path: string
}

function resolveLevel(table: OptionTable, given: unknown, level: Level): Record<string, unknown> {
  const record = asRecord(given, level.path || 'options')
  for (const key of Object.keys(record)) {
    if (!Object.hasOwn(table, key)) throw unknownOption(level.path + key, Object.keys(table))
  }
  const out: Record<string, unknown> = {}
  for (const [key, entry] of Object.entries(table)) {
    const path = level.path + key
    out[key] = isSpec(entry)
      ? resolveOne(entry, record[key], { env: level.env, path })
      : resolveLevel(entry, record[key], { env: level.env, path: `${path}.` })
  }
  return Object.freeze(out)
}

function resolveOne(spec: OptionSpec<unknown>, given: unknown, level: Level): unknown {
  if (given !== undefined) return spec.read(given, `Option ${level.path}`)
  const name = envName(level.path)
  const text = spec.fromText ? level.env[name] : undefined
  if (text === undefined || text === '' || !spec.fromText) return spec.default
  return spec.read(spec.fromText(text), `Environment variable ${name}`)
}

/** `lease.renewMs` reads FORGE_LEASE_RENEW_MS. */
export function envName(path: string): string {
  return `FORGE_${path
    .replaceAll('.', '_')
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toUpperCase()}`
}

export function asRecord(value: unknown, name: string): Record<string, unknown> {
  if (value === undefined) return {}
  const plain = typeof value === 'object' && value !== null && !Array.isArray(value)
  if (!plain) throw invalidOption(name.replace(/\.$/, ''), 'must be an object')
  return value as Record<string, unknown>
}

export function invalidOption(name: string, problem: string): ForgeError {
  return new ForgeError('FORGE_OPTION_INVALID', `${name} ${problem}.`)
}

export function unknownOption(path: string, known: readonly string[]): ForgeError {
  const near = nearest(path.split('.').at(-1) as string, known)
  const hint = near ? `Did you mean '${near}'?` : `Known: ${known.join(', ')}.`
  return new ForgeError('FORGE_OPTION_UNKNOWN', `'${path.slice(0, 80)}': ${hint}`)
}

/** The known name that is nearest in edits, if it is near enough to be what was meant. */
export function nearest(word: string, known: readonly string[]): string | null {
  const low = word.slice(0, 60).toLowerCase()
  let best: string | null = null
  let least = Math.max(2, Math.floor(low.length / 3)) + 1
  for (const name of known) {
    const distance = edits(low, name.toLowerCase())
    if (distance < least) [best, least] = [name, distance]
  }
  return best
}

function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}

type Shape<T> = Omit<OptionSpec<T>, 'read' | 'fromText' | 'shows'> & { readonly shows?: string }

const asNumberOrText = (text: string): unknown => (/^\d+$/.test(text) ? Number(text) : text)

export const option = {
  /** A duration; resolved to milliseconds. */
  duration(shape: Shape<number> & { readonly min?: number; readonly shows: string }): OptionSpec<number> {
    return {
      ...shape,
      fromText: asNumberOrText,
      read(value, name) {
        const ms = durationMs(value, name)
        if (ms < (shape.min ?? 0)) throw invalidOption(name, `must be at least ${shape.min} ms`)
        return ms
      },
    }
  },
  integer(shape: Shape<number> & { readonly min: number; readonly max: number }): OptionSpec<number> {
    return {
      shows: String(shape.default),
      ...shape,
      fromText: asNumberOrText,
      read(value, name) {
        const whole =
          Number.isInteger(value) && (value as number) >= shape.min && (value as number) <= shape.max
        if (!whole) throw invalidOption(name, `must be a whole number from ${shape.min} to ${shape.max}`)
        return value as number
      },
    }
  },
  flag(shape: Shape<boolean>): OptionSpec<boolean> {
    return {
      shows: String(shape.default),
      ...shape,
      fromText: (text) => ({ true: true, '1': true, false: false, '0': false })[text] ?? text,
      read(value, name) {
        if (typeof value !== 'boolean') throw invalidOption(name, 'must be true or false')
        return value
      },
    }
  },
  oneOf<const T extends string>(shape: Shape<T> & { readonly of: readonly T[] }): OptionSpec<T> {
    return {
      shows: `'${shape.default}'`,
      ...shape,
      fromText: (text) => text,
      read: (v, name) => member(v, name, shape.of),
    }
  },
  listOf<const T extends string>(
    shape: Shape<readonly T[]> & { readonly of: readonly T[] },
  ): OptionSpec<readonly T[]> {
    return {
      shows: shape.default.join(', '),
      ...shape,
      fromText: splitList,
      read(value, name) {
        const items = list(value, name).map((item) => member(item, name, shape.of))
        if (items.length === 0) throw invalidOption(name, `must name at least one of ${shape.of.join(', ')}`)
        return items
      },
    }
  },
  /** Anything else: the room checks it by itself. */
  custom<T>(spec: OptionSpec<T>): OptionSpec<T> {
    return spec
  },
}

export function splitList(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean)
}

export function list(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalidOption(name, 'must be a list')
  return [...new Set<unknown>(value)]
}

function member<T extends string>(value: unknown, name: string, of: readonly T[]): T {
  if (of.includes(value as T)) return value as T
  const near = typeof value === 'string' ? nearest(value, of) : null
  throw invalidOption(name, `must be one of ${of.join(', ')}${near ? `; did you mean '${near}'?` : ''}`)
}
