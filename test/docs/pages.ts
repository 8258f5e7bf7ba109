import { readFileSync } from 'node:fs'

export const root = new URL('../../', import.meta.url)

export function page(file: string): string {
  return readFileSync(new URL(file, root), 'utf8')
}

/** The rows of the tables under one heading, cell by cell; the heads and what is no table are left out. */
export function tableRows(text: string, heading?: string): string[][] {
  const part = heading === undefined ? text : section(text, heading)
  const lines = part.split('\n').filter((line) => line.startsWith('|'))
  const rows = lines.map((line) =>
    line
      .slice(1, line.lastIndexOf('|'))
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim().replaceAll('\\|', '|')),
  )
  return rows.filter((row, at) => !isRule(row) && !isRule(rows[at + 1]))
}

function section(text: string, heading: string): string {
  const from = text.indexOf(`\n## ${heading}\n`)
  if (from < 0) throw new Error(`There is no heading '${heading}'.`)
  const to = text.indexOf('\n## ', from + 1)
  return text.slice(from, to < 0 ? undefined : to)
}

function isRule(row: readonly string[] | undefined): boolean {
  return row !== undefined && row.every((cell) => /^-+$/.test(cell))
}

/** The code blocks that open with exactly these words. */
export function blocks(text: string, words: string): string[] {
  return [...text.matchAll(/^```([^\n]*)\n(.*?)^```$/gms)].flatMap(([, head, code]) =>
    head === words ? [code as string] : [],
  )
}

/** `name` of a cell that holds nothing but that. */
export function codeOf(cell: string | undefined): string {
  return /^`([^`]+)`$/.exec(cell ?? '')?.[1] ?? ''
}
