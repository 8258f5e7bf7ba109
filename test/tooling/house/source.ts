import path from 'node:path/posix'
import ts from 'typescript'

export interface Import {
  readonly specifier: string
  readonly line: number
}

export interface Source {
  /** Relative to the root of the repository, with forward slashes. */
  readonly file: string
  /** The folder below src, or the file itself at the root of src. */
  readonly room: string
  readonly text: string
  readonly tree: ts.SourceFile
  readonly imports: readonly Import[]
  readonly generated: boolean
}

export interface Violation {
  readonly rule: string
  readonly file: string
  readonly line: number
  readonly message: string
}

function isGenerated(file: string): boolean {
  return file.endsWith('.gen.ts') || file.split('/').includes('gen')
}

export function readSource(file: string, text: string): Source {
  const tree = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const room = file.split('/')[1] ?? ''
  return { file, room, text, tree, imports: importsOf(tree), generated: isGenerated(file) }
}

export function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node)
  ts.forEachChild(node, (child) => walk(child, visit))
}

export function lineOf(node: ts.Node): number {
  const tree = node.getSourceFile()
  return tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1
}

/** Every way to name a module, types included: import, export from, import(), import type(), require, import = require. */
function specifierOf(node: ts.Node): ts.Node | undefined {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node.moduleSpecifier
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) return node.argument.literal
  if (ts.isExternalModuleReference(node)) return node.expression
  if (ts.isCallExpression(node) && isImportCall(node.expression)) return node.arguments[0]
  return undefined
}

function isImportCall(callee: ts.Expression): boolean {
  return callee.kind === ts.SyntaxKind.ImportKeyword || (ts.isIdentifier(callee) && callee.text === 'require')
}

function importsOf(tree: ts.SourceFile): Import[] {
  const imports: Import[] = []
  walk(tree, (node) => {
    const specifier = specifierOf(node)
    if (specifier && ts.isStringLiteralLike(specifier)) {
      imports.push({ specifier: specifier.text, line: lineOf(specifier) })
    }
  })
  return imports
}

/** The source file that a relative import names: `./x.js` is `./x.ts` on disk. */
export function resolveImport(from: string, specifier: string): string {
  return path.join(path.dirname(from), specifier).replace(/\.([cm]?)js$/, '.$1ts')
}
