import ts from 'typescript'
import { lineOf, type Source, type Violation, walk } from './source.js'

function violation(rule: string, source: Source, node: ts.Node, message: string): Violation {
  return { rule, file: source.file, line: lineOf(node), message }
}

function isMember(node: ts.Node, object: string, property: string): boolean {
  if (ts.isPropertyAccessExpression(node))
    return isNamed(node.expression, object) && node.name.text === property
  if (!ts.isElementAccessExpression(node) || !isNamed(node.expression, object)) return false
  return ts.isStringLiteralLike(node.argumentExpression) && node.argumentExpression.text === property
}

/** `x`, or `globalThis.x`. */
function isNamed(node: ts.Node, name: string): boolean {
  if (ts.isIdentifier(node)) return node.text === name
  return (
    ts.isPropertyAccessExpression(node) && node.name.text === name && isNamed(node.expression, 'globalThis')
  )
}

/** `const { env } = process` and `import { env } from 'node:process'`. */
function takesEnv(node: ts.Node): boolean {
  if (ts.isVariableDeclaration(node) && ts.isObjectBindingPattern(node.name)) {
    if (!node.initializer || !isNamed(node.initializer, 'process')) return false
    return node.name.elements.some((element) => (element.propertyName ?? element.name).getText() === 'env')
  }
  if (!ts.isImportSpecifier(node) || (node.propertyName ?? node.name).text !== 'env') return false
  const from = node.parent.parent.parent.moduleSpecifier
  return ts.isStringLiteral(from) && /^(node:)?process$/.test(from.text)
}

export function checkEnvironment(source: Source): Violation[] {
  if (source.room === 'runtime') return []
  const found: Violation[] = []
  walk(source.tree, (node) => {
    if (isMember(node, 'process', 'env') || takesEnv(node)) {
      found.push(violation('environment', source, node, 'the environment is read in runtime alone'))
    }
  })
  return found
}

export function checkConsole(source: Source): Violation[] {
  const found: Violation[] = []
  walk(source.tree, (node) => {
    const global = ts.isIdentifier(node) && node.text === 'console' && isReference(node)
    const module =
      ts.isStringLiteral(node) && /^(node:)?console$/.test(node.text) && ts.isImportDeclaration(node.parent)
    if (global || module)
      found.push(violation('console', source, node, 'no console: the process is somebody else’s'))
  })
  return found
}

/** Not the name of a member or of a property, such as `{ console: true }`. */
function isReference({ parent, text }: ts.Identifier): boolean {
  if (ts.isPropertyAccessExpression(parent) && parent.name.text === text) return isNamed(parent, text)
  return !ts.isPropertyAssignment(parent) && !ts.isPropertySignature(parent)
}

/** The clock of this machine is read in one file, so that tests stub one thing. */
export function checkClock(source: Source): Violation[] {
  if (source.file === 'src/kernel/clock.ts') return []
  const found: Violation[] = []
  walk(source.tree, (node) => {
    const constructed =
      ts.isNewExpression(node) && (node.arguments?.length ?? 0) === 0 && isNamed(node.expression, 'Date')
    const called = ts.isCallExpression(node) && isNamed(node.expression, 'Date')
    if (constructed || called || isMember(node, 'Date', 'now')) {
      found.push(violation('clock', source, node, 'the time of day is asked of kernel/clock.ts'))
    }
  })
  return found
}

/** A generated file says so by its name, and a file that says so in its text has the name. */
export function checkGenerated(source: Source): Violation[] {
  const head = source.text.split('\n', 3).join('\n')
  const says = /^\s*(?:\/\/|\/\*|\*)[^\n]*\b(?:generated (?:from|by)|do not edit)\b/im.test(head)
  if (says === source.generated) return []
  const message = says
    ? 'a generated file is named *.gen.ts or lies in gen/'
    : 'a generated file says so in its first lines'
  return [{ rule: 'generated', file: source.file, line: 1, message }]
}
