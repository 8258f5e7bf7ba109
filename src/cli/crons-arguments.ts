import type { ByWhom } from '../schedules/index.js'
import type { CronsVerb } from './flags.js'
import { UsageError } from './usage.js'

/** What was asked about schedules. Values that the library checks by itself are not checked here. */
export interface CronsCall {
  readonly kind: 'crons'
  readonly verb: CronsVerb
  /** Empty for a list. */
  readonly name: string
  readonly who: ByWhom
  readonly at: string | undefined
  readonly limit: number | undefined
  readonly after: string | undefined
}

/** @throws UsageError */
export function readCrons(
  verb: CronsVerb,
  words: readonly string[],
  values: Readonly<Record<string, unknown>>,
): CronsCall {
  if (verb === 'list' && words.length > 0)
    throw new UsageError('crons list takes no arguments, only options.')
  if (verb !== 'list' && words.length !== 1)
    throw new UsageError(`crons ${verb} takes the name of one schedule.`)
  const text = (key: string): string | undefined => values[key] as string | undefined
  const [by, reason, limit] = [text('by'), text('reason'), text('limit')]
  return {
    kind: 'crons',
    verb,
    name: words[0] ?? '',
    who: { ...(by === undefined ? {} : { by }), ...(reason === undefined ? {} : { reason }) },
    at: text('at'),
    limit: limit === undefined ? undefined : Number(limit),
    after: text('after'),
  }
}
