import { createInterface } from 'node:readline/promises'

/** Where a call writes: the terminal, or what a test reads. */
export interface Output {
  out(text: string): void
  err(text: string): void
  /** Asks a person yes or no; absent: nobody is there to be asked. */
  readonly ask?: (question: string) => Promise<boolean>
}

/** The only place of forge that writes to the terminal: a command is the process, the library is a guest. */
export const terminal: Output = {
  out: (text) => void process.stdout.on('error', leave).write(text),
  err: (text) => void process.stderr.on('error', leave).write(text),
  ...(process.stdin.isTTY && process.stderr.isTTY ? { ask } : {}),
}

/** Whoever read the output has gone (`forge status | head -1`): nothing is left to say, and that is no failure. */
function leave(): void {
  process.exit()
}

async function ask(question: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^\s*y(es)?\s*$/i.test(await lines.question(`${question} [y/N] `))
  } catch {
    // The input ended, or was broken off: that is no yes.
    return false
  } finally {
    lines.close()
  }
}

// Controls, halves of pairs, and the characters that turn the direction of text, break lines or hide.
const unprintable = /[\p{Cc}\p{Cs}\u061C\u200B-\u200F\u2028-\u202E\u2060-\u206F\uFEFF]/gu

/** Names and hosts come from the database: whatever they hold, they must not steer the terminal. */
export function printable(text: string): string {
  return text.replace(unprintable, '\uFFFD')
}

/** The same inside of JSON: escaped, so that the document says the same. */
export function printableJson(json: string): string {
  return json.replace(unprintable, (character) => (character === '\n' ? character : escapeOf(character)))
}

function escapeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

// East Asian wide letters and pictures take two columns; marks that combine take none.
const wide =
  /[\u1100-\u115F\u2E80-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6\u{1F300}-\u{1FAFF}\u{20000}-\u{3FFFD}]/u
const combining = /\p{Mn}|\p{Me}/u

function widthOf(text: string): number {
  let width = 0
  for (const character of text) width += wide.test(character) ? 2 : combining.test(character) ? 0 : 1
  return width
}

/** As much of the text as fits; what is cut is marked. */
function fitted(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  let out = ''
  for (const character of text) {
    if (widthOf(out + character) > width - 1) break
    out += character
  }
  return `${out}…`
}

/** Lines of at most so many columns. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  let used = 0
  for (const character of printable(text)) {
    const own = widthOf(character)
    if (used + own > width) {
      lines.push(line)
      line = ''
      used = 0
    }
    line += character
    used += own
  }
  return [...lines, line]
}

/** Rows under each other, two spaces between columns; the first row is the head. Only columns that are named are cut. */
export function columns(
  rows: readonly (readonly string[])[],
  { widthMax, cut }: { readonly widthMax: number; readonly cut: readonly number[] } = {
    widthMax: 0,
    cut: [],
  },
): string {
  const clean = rows.map((row) => row.map(printable))
  const widths = (clean[0] ?? []).map((_, at) => Math.max(...clean.map((row) => widthOf(row[at] ?? ''))))
  const total = (): number => widths.reduce((sum, width) => sum + width + 2, -2)
  while (cut.length > 0 && total() > widthMax) {
    const widest = cut.reduce((best, at) => ((widths[at] ?? 0) > (widths[best] ?? 0) ? at : best))
    if ((widths[widest] ?? 0) <= 8) break
    widths[widest] = (widths[widest] ?? 0) - 1
  }
  const padded = (cell: string, at: number): string => {
    const width = widths[at] ?? 0
    const text = cut.includes(at) ? fitted(cell, width) : cell
    return text + ' '.repeat(Math.max(0, width - widthOf(text)))
  }
  return clean.map((row) => row.map(padded).join('  ').trimEnd()).join('\n')
}
