/** Where a call writes: the terminal, or what a test reads. */
export interface Output {
  out(text: string): void
  err(text: string): void
}

/** The only place of forge that writes to the terminal: a command is the process, the library is a guest. */
export const terminal: Output = {
  out: (text) => void process.stdout.on('error', leave).write(text),
  err: (text) => void process.stderr.on('error', leave).write(text),
}

/** Whoever read the output has gone (`forge status | head -1`): nothing is left to say, and that is no failure. */
function leave(): void {
  process.exit()
}

// Controls, and the characters that turn the direction of text.
const unprintable = /[\p{Cc}\u202A-\u202E\u2066-\u2069]/gu

/** Names and hosts come from the database: whatever they hold, they must not steer the terminal. */
export function printable(text: string): string {
  return text.replace(unprintable, '\uFFFD')
}

/** Rows under each other, two spaces between columns; the first row is the head. */
export function columns(rows: readonly (readonly string[])[]): string {
  const clean = rows.map((row) => row.map(printable))
  const widths = (clean[0] ?? []).map((_, at) => Math.max(...clean.map((row) => (row[at] ?? '').length)))
  return clean
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
