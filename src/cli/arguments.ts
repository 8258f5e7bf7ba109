import { parseArgs } from 'node:util'
import { nearest } from '../kernel/index.js'

export const commands = ['migrate', 'status', 'doctor'] as const
export type Command = (typeof commands)[number]

/** What was asked for, checked; nothing is connected yet. */
export type Call =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | {
      readonly kind: Command
      readonly databaseUrl: string
      /** Not checked yet. Absent: the default. */
      readonly schema: string | undefined
    }

/** A call that cannot be understood. */
export class UsageError extends Error {
  constructor(message: string) {
    super(`${message} See forge --help.`)
    this.name = 'UsageError'
  }
}

const flags = {
  'database-url': { type: 'string' },
  schema: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const
const flagNames = Object.keys(flags).map((name) => `--${name}`)

/**
 * Reads a call; what is not given comes from the environment: DATABASE_URL, FORGE_SCHEMA.
 * @throws UsageError for anything unknown, with the nearest name
 */
export function readArguments(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Call {
  const { values, positionals, tokens } = parseArgs({
    args: [...args],
    options: flags,
    allowPositionals: true,
    // Its own errors show the argument as it is, which may be a connection string.
    strict: false,
    tokens: true,
  })
  for (const token of tokens) if (token.kind === 'option') checkFlag(token)
  if (values.help) return { kind: 'help' }
  if (values.version) return { kind: 'version' }
  const kind = readCommand(positionals)
  const databaseUrl = (values['database-url'] as string | undefined) ?? env.DATABASE_URL
  if (!databaseUrl) throw new UsageError('Which database? Set DATABASE_URL, or pass --database-url.')
  const schema = (values.schema as string | undefined) ?? (env.FORGE_SCHEMA || undefined)
  // Whatever is wrong with a schema name is shown with the name.
  if (schema?.includes('://')) throw new UsageError('The schema is a name, not a connection string.')
  return { kind, databaseUrl, schema }
}

interface FlagToken {
  readonly name: string
  readonly rawName: string
  readonly value?: string | undefined
  readonly inlineValue?: boolean | undefined
}

function checkFlag({ name, rawName, value, inlineValue }: FlagToken): void {
  if (!Object.hasOwn(flags, name)) throw unknown('option', rawName, flagNames)
  const takesValue = flags[name as keyof typeof flags].type === 'string'
  if (!takesValue && value !== undefined) throw new UsageError(`${rawName} takes no value.`)
  if (takesValue && (value === undefined || value === '' || (!inlineValue && value.startsWith('-'))))
    throw new UsageError(`${rawName} needs a value.`)
}

function readCommand([first, second]: readonly string[]): Command {
  if (first === undefined) throw new UsageError(`Which command? There are ${commands.join(', ')}.`)
  const known = commands.find((command) => command === first)
  if (!known) throw unknown('command', first, commands)
  if (second !== undefined) throw new UsageError(`${known} takes no arguments, only options.`)
  return known
}

/** A word is shown only when it looks like one: a misplaced connection string must not reach a log. */
function unknown(what: string, word: string, known: readonly string[]): UsageError {
  const shown = /^[\w-]{1,40}$/.test(word) ? `${what} '${word}'` : `such ${what}`
  const near = nearest(word, known)
  const hint = near ? `Did you mean ${near}?` : `There are ${known.join(', ')}.`
  return new UsageError(`There is no ${shown}. ${hint}`)
}
