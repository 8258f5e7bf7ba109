import ts from 'typescript'
import { dictatedSignatures, fileLines, functionLines, positionalParametersMax } from './layout.js'
import { lineOf, type Source, type Violation, walk } from './source.js'

export interface Sizes {
  /** Files and functions above the aim, as `file: lines`: what the ratchet counts. */
  readonly longFiles: readonly string[]
  readonly longFunctions: readonly string[]
}

function lineCount({ text }: Source): number {
  return text.replace(/\n$/, '').split('\n').length
}

function functionsOf(source: Source): ts.FunctionLikeDeclaration[] {
  const found: ts.FunctionLikeDeclaration[] = []
  walk(source.tree, (node) => {
    if (ts.isFunctionLike(node) && 'body' in node && node.body) found.push(node)
  })
  return found
}

function functionLineCount(node: ts.FunctionLikeDeclaration): number {
  const tree = node.getSourceFile()
  return tree.getLineAndCharacterOfPosition(node.end).line + 2 - lineOf(node)
}

function nameOf(node: ts.FunctionLikeDeclaration): string {
  const named = node.name ?? (ts.isVariableDeclaration(node.parent) ? node.parent.name : undefined)
  return named?.getText() ?? 'a function'
}

export function measure(sources: readonly Source[]): Sizes {
  const written = sources.filter(({ generated }) => !generated)
  const files = written.filter((source) => lineCount(source) > fileLines.aim)
  const functions = written.flatMap((source) =>
    functionsOf(source)
      .filter((node) => functionLineCount(node) > functionLines.aim)
      .map((node) => `${source.file}:${lineOf(node)} ${nameOf(node)}: ${functionLineCount(node)}`),
  )
  return {
    longFiles: files.map((source) => `${source.file}: ${lineCount(source)}`),
    longFunctions: functions,
  }
}

export function checkSizes(source: Source): Violation[] {
  const found: Violation[] = []
  const add = (line: number, message: string) =>
    found.push({ rule: 'sizes', file: source.file, line, message })
  if (lineCount(source) > fileLines.hard) add(1, `${lineCount(source)} lines; at most ${fileLines.hard}`)
  for (const node of functionsOf(source)) {
    const lines = functionLineCount(node)
    if (lines > functionLines.hard)
      add(lineOf(node), `${nameOf(node)} has ${lines} lines; at most ${functionLines.hard}`)
  }
  return found
}

export function checkParameters(source: Source): Violation[] {
  const found: Violation[] = []
  walk(source.tree, (node) => {
    if (!ts.isFunctionLike(node) || ts.isIndexSignatureDeclaration(node)) return
    const names = node.parameters.map(({ name }) => name.getText()).filter((name) => name !== 'this')
    if (names.length <= positionalParametersMax || names.at(-1) === dictatedSignatures[source.room]) return
    const message = `${names.length} parameters (${names.join(', ')}); at most ${positionalParametersMax}`
    found.push({ rule: 'parameters', file: source.file, line: lineOf(node), message })
  })
  return found
}
