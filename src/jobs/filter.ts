import { asRecord, ForgeError, isUuid, unknownOption } from '../kernel/index.js'
import { type JobState, jobStates } from './job.js'

/** Which jobs. All conditions must hold; none at all needs `all: true` where something is changed. */
export interface JobFilter {
  readonly ids?: readonly string[]
  readonly state?: JobState | readonly JobState[]
  readonly queue?: string
  readonly name?: string
  /** Only jobs that carry this tag. */
  readonly tag?: string
  /** Only jobs whose parent is this job. */
  readonly parent?: string
  /** Only jobs older than this id: the last one of the page before. */
  readonly before?: string
  /** At most so many. Lists: 1 to 200, default 50. Changes: 1 to 10,000, default 1,000; a dry run counts up to 10,000. */
  readonly limit?: number
  readonly all?: boolean
}

/** One job, several, or all that a filter means. */
export type Which = string | readonly string[] | JobFilter

/** A filter that is checked, as the statements take it. */
export interface ReadFilter {
  /** Numbers of the states; null: any. */
  readonly states: readonly number[] | null
  /** $2 to $7 of the statements: queue, name, before, tag, parent, ids. */
  readonly rest: readonly unknown[]
  readonly limit: number
  readonly conditions: number
  /** Without repeats, in lower case; null: any. */
  readonly ids: readonly string[] | null
  /** Ids and no other condition: there is nothing to look up. */
  readonly plain: boolean
}

interface Limits {
  readonly limitDefault: number
  readonly limitMax: number
}

const known = ['ids', 'state', 'queue', 'name', 'tag', 'parent', 'before', 'limit', 'all']
export const listLimits: Limits = { limitDefault: 50, limitMax: 200 }
const changeMax = 10_000
const changeDefault = 1_000

/**
 * The jobs that a change means.
 * @throws ForgeError FORGE_FILTER_EMPTY, FORGE_FILTER_INVALID, FORGE_OPTION_UNKNOWN
 */
export function readWhich(which: Which, dryRun: boolean): ReadFilter {
  const given = typeof which === 'string' ? { ids: [which] } : Array.isArray(which) ? { ids: which } : which
  const filter = given as JobFilter
  const read = readFilter(filter, { limitDefault: dryRun ? changeMax : changeDefault, limitMax: changeMax })
  if (read.conditions === 0 && filter.all !== true) throw new ForgeError('FORGE_FILTER_EMPTY')
  return read
}

/** @throws ForgeError FORGE_FILTER_INVALID, FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID */
export function readFilter(filter: JobFilter, { limitDefault, limitMax }: Limits): ReadFilter {
  const record = asRecord(filter, 'The filter')
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  const { queue, name, tag, before, parent } = filter
  const states = filter.state === undefined ? null : [filter.state].flat().map(readState)
  const ids = filter.ids === undefined ? null : readIds(filter.ids)
  for (const [key, id] of Object.entries({ before, parent }))
    if (id !== undefined && !isUuid(id)) throw invalidFilter(`${key} must be the id of a job`)
  for (const [key, text] of Object.entries({ queue, name, tag }))
    if (text !== undefined && (typeof text !== 'string' || text.includes('\u0000')))
      throw invalidFilter(`${key} must be text`)
  const limit = filter.limit ?? Math.max(limitDefault, ids?.length ?? 0)
  if (!Number.isInteger(limit) || limit < 1 || limit > limitMax)
    throw invalidFilter(`limit must be a whole number from 1 to ${limitMax}`)
  const rest = [queue ?? null, name ?? null, before ?? null, tag ?? null, parent ?? null, ids]
  const conditions = [states, ...rest].filter((value) => value !== null).length
  const plain = ids !== null && conditions === 1 && ids.length <= limit
  return { states, rest, limit, conditions, ids, plain }
}

/** @throws ForgeError FORGE_FILTER_INVALID */
export function readId(id: unknown): string {
  return readIds([id])[0] as string
}

/** PostgreSQL writes them in lower case. */
function readIds(ids: unknown): string[] {
  if (!Array.isArray(ids) || !ids.every(isUuid)) throw invalidFilter('ids must be a list of job ids (UUIDs)')
  return [...new Set(ids.map((id) => id.toLowerCase()))]
}

function readState(state: unknown): number {
  const number = jobStates.indexOf(state as JobState)
  if (number < 0) throw invalidFilter(`state must be one of ${jobStates.join(', ')}`)
  return number
}

function invalidFilter(problem: string): ForgeError {
  return new ForgeError('FORGE_FILTER_INVALID', `${problem}.`)
}
