import type { OnConflict } from './unique.js'

/** A job on its way into the table. */
export interface Row {
  readonly id: string
  /** The caller chose the id: it may have been used before. */
  readonly ownId: boolean
  readonly lane: number
  readonly queue: string
  readonly priority: number
  readonly attemptsMax: number
  readonly delayMs: number | null
  readonly runAt: Date | null
  readonly json: string
  /** What few jobs have; null for the rest, which take the leaner statements. */
  readonly extra: RowExtra | null
  readonly unique: RowKey | null
}

export interface RowExtra {
  readonly gates: readonly string[] | null
  readonly tags: readonly string[] | null
  readonly parent: string | null
}

export interface RowKey {
  readonly scope: string
  /** Null: the hash of the input, which the server computes, so that SQL and JavaScript come to the same. */
  readonly key: string | null
  readonly mode: OnConflict
  readonly windowMs: number | null
  readonly maxWaitMs: number | null
}

/** Rows of one statement; the rest of a larger call follows in the same transaction. */
const rowsPerStatement = 5_000
/** Characters of input in one statement: pg makes one string of them, and V8 ends strings at 512 MB. */
const charsPerStatement = 64_000_000

/** Cuts rows into what one statement takes, by number and by size. */
export function portions(rows: readonly Row[]): (readonly Row[])[] {
  const parts: (readonly Row[])[] = []
  let from = 0
  let chars = 0
  for (let at = 0; at < rows.length; at++) {
    chars += (rows[at] as Row).json.length
    if (at - from < rowsPerStatement && (chars <= charsPerStatement || at === from)) continue
    parts.push(rows.slice(from, at))
    from = at
    chars = (rows[at] as Row).json.length
  }
  parts.push(from === 0 ? rows : rows.slice(from))
  return parts
}

/** True for a job that the one-row statement can insert: nothing special, due now, and never tried before. */
export function isPlain(row: Row): boolean {
  return row.extra === null && row.unique === null && !row.ownId
}

/** By what they need: most jobs take the lean statement, whatever comes with them. An id that may be used goes alone. */
export function* byKind<T extends { readonly row: Row }>(batch: readonly T[]): Iterable<readonly T[]> {
  if (batch.length === 1 || batch.every(({ row }) => isPlain(row))) {
    yield batch
    return
  }
  const kinds = [
    batch.filter(({ row }) => isPlain(row)),
    batch.filter(({ row }) => !isPlain(row) && row.unique === null),
    batch.filter(({ row }) => row.unique !== null && !row.ownId),
    ...batch.filter(({ row }) => row.unique !== null && row.ownId).map((call) => [call]),
  ]
  yield* kinds.filter((kind) => kind.length > 0)
}

/*
 * Array literals are written here and not by pg, which looks at each element anew: most of these need no quoting, and
 * the rest is known to need it.
 */

function list(rows: readonly Row[], item: (row: Row) => string | number | null): string {
  let text = '{'
  for (let at = 0; at < rows.length; at++) {
    if (at > 0) text += ','
    text += item(rows[at] as Row) ?? 'null'
  }
  return `${text}}`
}

/** JSON holds no control characters, so its own escapes are those of an array literal. */
const quoteJson = (row: Row): string => JSON.stringify(row.json)

const quote = (text: string): string => `"${text.replace(/["\\]/g, '\\$&')}"`
const quoteOrNull = (text: string | null | undefined): string | null => (text == null ? null : quote(text))
const quoteList = (items: readonly string[] | null | undefined): string | null =>
  items ? quote(`{${items.map(quote).join(',')}}`) : null

/** For `insertMany`. */
export function plainArrays(rows: readonly Row[]): unknown[] {
  return [
    list(rows, (row) => row.id),
    list(rows, (row) => row.lane),
    list(rows, (row) => row.priority),
    list(rows, (row) => row.attemptsMax),
    list(rows, (row) => row.delayMs),
    list(rows, (row) => row.runAt && quote(row.runAt.toISOString())),
    list(rows, quoteJson),
  ]
}

/** Characters of a chunk: the server reads one while the next is made. */
const charsPerChunk = 65_536

/** For `copyJobs`: what all of the rows have in common comes between id and input. */
export function* copyChunks(rows: readonly Row[], common: readonly (string | number)[]): Iterable<string> {
  const middle = `\t${common.join('\t')}\t`
  let text = ''
  for (const { id, json } of rows) {
    // JSON holds no control characters, so the backslash is all that COPY would take for something else.
    text += `${id}${middle}${json.includes('\\') ? json.replaceAll('\\', '\\\\') : json}\n`
    if (text.length < charsPerChunk) continue
    yield text
    text = ''
  }
  if (text !== '') yield text
}

/** For `insertFull`. */
export function fullArrays(rows: readonly Row[]): unknown[] {
  return [
    ...plainArrays(rows),
    list(rows, (row) => quoteList(row.extra?.gates)),
    list(rows, (row) => quoteList(row.extra?.tags)),
    list(rows, (row) => row.extra?.parent ?? null),
  ]
}

/** For `insertUnique`. `careful`: the ids may have been used before. */
export function uniqueArrays(rows: readonly Row[], careful: boolean): unknown[] {
  const [ids, ...rest] = fullArrays(rows)
  return [
    ids,
    list(rows, (row) => (careful || row.ownId ? 't' : 'f')),
    ...rest,
    list(rows, (row) => quoteOrNull(row.unique?.scope)),
    list(rows, (row) => quoteOrNull(row.unique?.key)),
    list(rows, (row) => row.unique?.mode ?? null),
    list(rows, (row) => row.unique?.windowMs ?? null),
    list(rows, (row) => row.unique?.maxWaitMs ?? null),
  ]
}
