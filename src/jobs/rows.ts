/** One job on its way into the table: a row of the insert. */
export interface Row {
  readonly id: string
  readonly ownId: boolean
  readonly lane: number
  readonly queue: string
  readonly priority: number
  readonly attemptsMax: number
  readonly delayMs: number | null
  readonly runAt: Date | null
  readonly json: string
  readonly gates: readonly string[] | null
}

/** Rows of one statement; the rest of a larger call follows in the same transaction. */
const rowsPerStatement = 5_000
/** Characters of input in one statement: pg makes one string of them, and V8 ends strings at 512 MB. */
const charsPerStatement = 64_000_000

/** Cuts rows into what one statement takes, by number and by size. */
export function* portions(rows: readonly Row[]): Iterable<readonly Row[]> {
  let from = 0
  let chars = 0
  for (let at = 0; at < rows.length; at++) {
    chars += (rows[at] as Row).json.length
    if (at - from < rowsPerStatement && (chars <= charsPerStatement || at === from)) continue
    yield rows.slice(from, at)
    from = at
    chars = (rows[at] as Row).json.length
  }
  yield rows.slice(from)
}

/** The parameters of the insert. */
export function arraysOf(rows: readonly Row[]): unknown[] {
  return [
    rows.map((row) => row.id),
    rows.map((row) => row.lane),
    rows.map((row) => row.priority),
    rows.map((row) => row.attemptsMax),
    rows.map((row) => row.delayMs),
    rows.map((row) => row.runAt),
    rows.map((row) => row.json),
    rows.map((row) => row.gates && JSON.stringify(row.gates)),
  ]
}
