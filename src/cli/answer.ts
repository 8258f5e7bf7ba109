import { codeOf, type ForgeError, isForgeError, messageOf } from '../kernel/index.js'
import { UsageError } from './usage.js'

/** Exit codes. They never change their meaning; `--help` lists them. */
export const exits = { ok: 0, todo: 1, usage: 2, unreachable: 3 } as const
export type Exit = (typeof exits)[keyof typeof exits]

/** What a command came to. */
export interface Answer {
  readonly exit: Exit
  /** For people. */
  readonly text: string
  /** For programs; `ok` is added, true for exit code 0. */
  readonly document: Readonly<Record<string, unknown>>
}

/** A failure as it is shown: what happened, and what to do. */
export interface Failure {
  readonly exit: Exit
  /** A code of docs/errors.md, `USAGE`, or the code of PostgreSQL or the system. */
  readonly code: string
  readonly message: string
}

const unreachable = new Set([
  'FORGE_CONNECTION_LOST',
  'FORGE_DATABASE_AUTH',
  'FORGE_DATABASE_MISSING',
  'FORGE_DATABASE_UNREACHABLE',
  'FORGE_DEADLINE',
])
const usage = /^FORGE_(OPTION|DURATION|FILTER|SCHEMA_NAME|DATABASE_URL)_/

export function failureOf(error: unknown): Failure {
  if (error instanceof UsageError) return { exit: exits.usage, code: 'USAGE', message: error.message }
  const code = codeOf(error) || 'UNEXPECTED'
  if (isForgeError(error)) return { exit: exitOf(error), code, message: error.message }
  const grant = code === '42501' ? ' Grant the role what docs/privileges.md lists.' : ''
  return { exit: exits.todo, code, message: `${messageOf(error)}.${grant}` }
}

function exitOf(error: ForgeError): Exit {
  if (unreachable.has(error.code)) return exits.unreachable
  return usage.test(error.code) ? exits.usage : exits.todo
}
