import { parseArgs } from 'node:util'
import { nearest } from '../kernel/index.js'
import { type CronsCall, readCrons } from './crons-arguments.js'
import {
  commonFlags,
  type CronsVerb,
  cronsVerbNames,
  cronsVerbs,
  type Flag,
  flags,
  jobsVerbNames,
  type JobsVerb,
  jobsVerbs,
} from './flags.js'
import { type JobsCall, readJobs } from './jobs-arguments.js'
import { UsageError } from './usage.js'

export const commands = ['migrate', 'status', 'doctor', 'nodes', 'leaders', 'drain', 'crons', 'jobs'] as const
export type Command = (typeof commands)[number]

/** Which database, and which schema in it. */
export interface Place {
  readonly databaseUrl: string
  /** Not checked yet. Absent: the default. */
  readonly schema: string | undefined
  /** Where the schema was named, for the error; absent: as an option. */
  readonly schemaFrom?: 'FORGE_SCHEMA'
}

/** What was asked for, checked; nothing is connected yet. */
export type Call =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | (Place & { readonly kind: Exclude<Command, 'migrate' | 'jobs' | 'crons' | 'drain'> })
  | (Place & { readonly kind: 'migrate'; readonly sql: boolean })
  | (Place & { readonly kind: 'drain'; readonly id: string })
  | (Place & JobsCall)
  | (Place & CronsCall)

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
  const [first, second] = positionals
  const ofVerb = verbFlags(first, second)
  const allowed = [...commonFlags, ...(ofVerb ?? [])]
  // Without a verb the options of all verbs are let through: the missing verb is what is wrong.
  const lenient = (first === 'jobs' || first === 'crons') && !ofVerb
  for (const token of tokens) if (token.kind === 'option') checkFlag(token, lenient ? allFlags : allowed)
  if (values.help) return { kind: 'help' }
  if (values.version) return { kind: 'version' }
  const kind = readCommand(positionals)
  const words = positionals.slice(2)
  if (kind === 'jobs')
    return { ...readJobs(readVerb(kind, second, jobsVerbNames), words, values), ...readPlace(values, env) }
  if (kind === 'crons')
    return { ...readCrons(readVerb(kind, second, cronsVerbNames), words, values), ...readPlace(values, env) }
  if (kind === 'migrate') return { kind, sql: values.sql === true, ...readPlace(values, env) }
  if (kind === 'drain') return { kind, id: second ?? '', ...readPlace(values, env) }
  return { kind, ...readPlace(values, env) }
}

function verbFlags(command: string | undefined, verb: string | undefined): readonly Flag[] | undefined {
  if (command === 'migrate') return ['sql']
  if (command === 'jobs' && Object.hasOwn(jobsVerbs, verb ?? '')) return jobsVerbs[verb as JobsVerb]
  if (command === 'crons' && Object.hasOwn(cronsVerbs, verb ?? '')) return cronsVerbs[verb as CronsVerb]
  return undefined
}

const allFlags = Object.keys(flags) as Flag[]

function readPlace(
  values: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
): Place {
  const databaseUrl = (values['database-url'] as string | undefined) ?? env.DATABASE_URL
  if (!databaseUrl) throw new UsageError('Which database? Set DATABASE_URL, or pass --database-url.')
  const own = values.schema as string | undefined
  const schema = own ?? (env.FORGE_SCHEMA || undefined)
  // Whatever is wrong with a schema name is shown with the name.
  if (schema?.includes('://')) throw new UsageError('The schema is a name, not a connection string.')
  const from = own === undefined && schema !== undefined ? { schemaFrom: 'FORGE_SCHEMA' as const } : {}
  return { databaseUrl, schema, ...from }
}

interface FlagToken {
  readonly name: string
  readonly rawName: string
  readonly value?: string | undefined
  readonly inlineValue?: boolean | undefined
}

function checkFlag({ name, rawName, value, inlineValue }: FlagToken, allowed: readonly Flag[]): void {
  if (!allowed.includes(name as Flag)) {
    if (Object.hasOwn(flags, name)) throw new UsageError(`${rawName} is not an option of this command.`)
    throw unknown('option', rawName, allowed.map((flag) => `--${flag}`)) // prettier-ignore
  }
  const takesValue = flags[name as Flag].type === 'string'
  if (!takesValue && value !== undefined) throw new UsageError(`${rawName} takes no value.`)
  if (takesValue && (value === undefined || value === '' || (!inlineValue && value.startsWith('-'))))
    throw new UsageError(`${rawName} needs a value.`)
}

function readCommand([first, second, third]: readonly string[]): Command {
  if (first === undefined) throw new UsageError(`Which command? There are ${commands.join(', ')}.`)
  const known = commands.find((command) => command === first)
  if (!known) throw unknown('command', first, commands)
  if (known === 'drain' && (second === undefined || third !== undefined))
    throw new UsageError('drain takes the id of one node; forge nodes lists them.')
  if (!['jobs', 'crons', 'drain'].includes(known) && second !== undefined)
    throw new UsageError(`${known} takes no arguments, only options.`)
  return known
}

function readVerb<Verb extends string>(of: string, word: string | undefined, verbs: readonly Verb[]): Verb {
  if (word === undefined) throw new UsageError(`What about ${of}? There are ${verbs.join(', ')}.`)
  const known = verbs.find((verb) => verb === word)
  if (!known) throw unknown('command', word, verbs)
  return known
}

/** A word is shown only when it looks like one: a misplaced connection string must not reach a log. */
function unknown(what: string, word: string, known: readonly string[]): UsageError {
  const shown = /^[\w-]{1,40}$/.test(word) ? `${what} '${word}'` : `such ${what}`
  const near = nearest(word, known)
  const hint = near ? `Did you mean ${near}?` : `There are ${known.join(', ')}.`
  return new UsageError(`There is no ${shown}. ${hint}`)
}
