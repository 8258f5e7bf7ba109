import ts from 'typescript'
import { lineOf, type Source, type Violation, walk } from './source.js'

/*
 * SQL is recognised by its text: a statement begins with a verb and the word that SQL wants after it. That word is what tells
 * a statement from an English sentence ("select the queue", "update the lease", "set the option").
 */
const objects =
  'table|index|schema|function|procedure|trigger|type|domain|view|materialized|database|role|user|sequence|extension|' +
  'publication|subscription|policy|aggregate|cast|rule|server|statistics|tablespace|system|owned|constraint|foreign|event'
const name = String.raw`(?:[\w.$]|"[^"]*")+`

const openings = [
  String.raw`select\s+(?:\*|\d|\$|'|"|array\b|distinct\b|exists\b|count\b|case\b|not\b|coalesce\b|true\b|false\b|null\b)`,
  String.raw`select\s+${name}\s*(?:\(|,|::|\bas\b|\bfrom\b|$)`,
  String.raw`select\b[^]*\bfrom\s+${name}\s*(?:$|\)|;|,|\b(?:where|order|group|limit|join|left|inner|cross|for|as)\b)`,
  String.raw`insert\s+into\b`,
  String.raw`update\s+(?:only\s+)?${name}(?:\s+(?:as\s+)?\w+)?\s+set\b`,
  String.raw`delete\s+from\b`,
  String.raw`merge\s+into\b`,
  String.raw`with\s+(?:recursive\s+)?${name}(?:\s*\([^)]*\))?\s+as\s*(?:(?:not\s+)?materialized\s*)?\(`,
  String.raw`create\s+(?:or\s+replace\s+)?(?:(?:unlogged|temp|temporary|unique|global|local|constraint)\s+)*(?:${objects})\b`,
  String.raw`(?:alter|drop)\s+(?:${objects})\b`,
  String.raw`comment\s+on\b`,
  String.raw`set\s+(?:(?:local|session)\s+)?(?:${name})\s*(?:=|\bto\b)`,
  String.raw`set\s+(?:local\s+|session\s+)?(?:transaction|constraints|role|session\s+authorization|time\s+zone)\b`,
  String.raw`(?:un)?listen\s+(?:\*|"|\$|\w+;?$)`,
  String.raw`notify\s+(?:"|\$|\w+(?:\s*,|;?$))`,
  String.raw`(?:begin|start\s+transaction)\s+(?:isolation\s+level|read\s+(?:only|write)|work|transaction)\b`,
  String.raw`(?:begin|commit|rollback|discard\s+all|start\s+transaction|reset\s+all);?$`,
  String.raw`rollback\s+to\b|(?:release\s+)?savepoint\s+(?:"|\$|\w+;?$)|prepare\s+transaction\b|(?:commit|rollback)\s+prepared\b`,
  String.raw`lock\s+table\b|truncate\s+(?:table\s+)?(?:"|\$|\w+\s*(?:,|$))|(?:grant|revoke)\s+(?:[\w\s,]+)\bon\b`,
  String.raw`copy\s+${name}\s*(?:\([^)]*\)\s*)?(?:from|to)\b|copy\s*\(`,
  String.raw`explain\s+(?:\(|analyze|verbose|select|insert|update|delete|with)`,
  String.raw`(?:do|call)\s+(?:\$\$|\$\w+\$|${name}\s*\()|values\s*\(|refresh\s+materialized\b|reindex\s+(?:table|index)\b`,
  String.raw`(?:vacuum|analyze)\s*(?:\(|"|\$|full\b|${name};?$)|show\s+(?:all|server_version\w*|[a-z]+_[a-z_]+);?$`,
  String.raw`declare\s+${name}\s+(?:no\s+scroll\s+|scroll\s+)?cursor\b|fetch\s+(?:forward|next|all|\d+)\s+(?:\d+\s+)?from\b`,
]

/** Turns that only SQL has, wherever they stand: a statement put together from pieces is one as well. */
const turns = [
  String.raw`\bfor\s+(?:no\s+key\s+)?update\s+(?:of\s+\w+\s+)?(?:skip\s+locked|nowait)\b`,
  String.raw`\bskip\s+locked\b`,
  String.raw`\bon\s+conflict\s*(?:\(|do\b|on\s+constraint\b)`,
  String.raw`\binsert\s+into\s+${name}\s*(?:\(|select\b|values\b)`,
  String.raw`\bdelete\s+from\s+${name}\s+(?:where|using)\b`,
  String.raw`\bselect\b[^]+\bfrom\b[^]+\bwhere\b`,
  String.raw`\border\s+by\s+${name}(?:\s*,|\s+(?:asc|desc|limit)\b)`,
  String.raw`^(?:and|or|where)\s+${name}\s*(?:=|<|>|in\s*\(|is\s+(?:not\s+)?null\b|like\b)`,
  String.raw`^returning\s+(?:\*|${name}(?:\s*,|$))`,
]

const opening = new RegExp(`^(?:${openings.join('|')})`)
const turn = new RegExp(turns.join('|'))
const loneVerb = /^(?:begin|commit|rollback)$/i

/** A statement in lower or in upper case; a sentence that begins with a capital letter is none. */
function looksLikeSql(text: string): boolean {
  const statement = text.replace(/--[^\n]*\n|\/\*[^]*?\*\//g, ' ').trim()
  if (/^[A-Z][a-z]/.test(statement)) return false
  const lower = statement.toLowerCase()
  return opening.test(lower) || turn.test(lower)
}

/** `'commit'` alone is a statement when it is sent, and a plain word, or the server's answer, elsewhere. */
function isSent(node: ts.Node): boolean {
  const { parent } = node
  if (ts.isPropertyAssignment(parent)) return parent.name.getText() === 'text'
  if (!ts.isCallExpression(parent)) return false
  const callee = parent.expression
  const called = ts.isPropertyAccessExpression(callee) ? callee.name.text : callee.getText()
  return /^(?:query|execute|exec|run|send|sql|statement)/i.test(called)
}

function textOf(node: ts.Node): string | undefined {
  if (ts.isStringLiteralLike(node)) return node.text
  if (!ts.isTemplateExpression(node)) return undefined
  return node.head.text + node.templateSpans.map(({ literal }) => `$x${literal.text}`).join('')
}

function isPlace(file: string): boolean {
  return file.endsWith('/queries.ts') || file.split('/').includes('queries')
}

/** Tables are named, and statements written, in queries.ts, in queries/ and in the migrations. */
export function checkSql(source: Source): Violation[] {
  if (isPlace(source.file)) return []
  const found: Violation[] = []
  walk(source.tree, (node) => {
    const text = textOf(node)
    if (text === undefined || !looksLikeSql(text)) return
    if (loneVerb.test(text.trim()) && !isSent(node)) return
    const excerpt = text.replace(/\s+/g, ' ').trim().slice(0, 60)
    const message = `SQL stands in queries.ts or queries/ only: ${excerpt}`
    found.push({ rule: 'sql', file: source.file, line: lineOf(node), message })
  })
  return found
}
