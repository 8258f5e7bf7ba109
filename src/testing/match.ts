import { inspect, isDeepStrictEqual } from 'node:util'

/** One place where a value is not what was expected. */
export interface Difference {
  readonly path: string
  readonly expected: unknown
  readonly actual: unknown
}

/** Matchers of test frameworks (`expect.any(String)`, sinon's, …) say for themselves what they match. */
interface Matcher {
  asymmetricMatch(actual: unknown): boolean
}

/**
 * Where `actual` lacks something of `expected`: objects may have more fields than expected, lists must have the same length.
 * Empty: it matches.
 */
export function differences(expected: unknown, actual: unknown, path: string): Difference[] {
  if (isMatcher(expected)) return expected.asymmetricMatch(actual) ? [] : [{ path, expected, actual }]
  if (Array.isArray(expected)) {
    if (!Array.isArray(actual) || actual.length !== expected.length) return [{ path, expected, actual }]
    return expected.flatMap((item, at) => differences(item, actual[at], `${path}[${at}]`))
  }
  if (isPlain(expected)) {
    if (!isPlain(actual)) return [{ path, expected, actual }]
    return Object.entries(expected).flatMap(([key, value]) =>
      // A field that is undefined is left out by JSON.
      differences(value, Object.hasOwn(actual, key) ? actual[key] : undefined, `${path}.${key}`),
    )
  }
  // What was enqueued has been through JSON: a Date has become text.
  const image = expected instanceof Date ? expected.toJSON() : expected
  return isDeepStrictEqual(image, actual) ? [] : [{ path, expected, actual }]
}

/** A value on one line, cut. */
export function show(value: unknown, charsMax = 200): string {
  const text = inspect(value, { depth: 6, breakLength: Infinity, compact: true })
  return text.length > charsMax ? `${text.slice(0, charsMax)}…` : text
}

function isMatcher(value: unknown): value is Matcher {
  return typeof (value as Partial<Matcher> | null)?.asymmetricMatch === 'function'
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}
