import { CronPattern } from 'croner'
import { ForgeError } from '../kernel/index.js'

/** What the five or six fields of an expression allow. */
export interface Fields {
  readonly seconds: readonly number[]
  readonly minutes: readonly number[]
  readonly hours: readonly number[]
  /** 1 to 31. */
  readonly days: ReadonlySet<number>
  /** 1 to 12. */
  readonly months: ReadonlySet<number>
  /** 0 is Sunday. */
  readonly weekdays: ReadonlySet<number>
  /**
   * Both the day of the month and the weekday are restricted: then either one is enough, as in cron. A field that begins
   * with `*` does not restrict.
   */
  readonly either: boolean
}

interface FieldKind {
  readonly name: string
  readonly of: 'second' | 'minute' | 'hour' | 'day' | 'month' | 'dayOfWeek'
  /** Its first value: what the parser counts from 0. */
  readonly from: 0 | 1
  readonly names?: readonly string[]
  /** How many values there are: a longer step is a mistake. */
  readonly span: number
}

const monthNames = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const weekdayNames = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']

const kinds: readonly FieldKind[] = [
  { name: 'second', of: 'second', from: 0, span: 60 },
  { name: 'minute', of: 'minute', from: 0, span: 60 },
  { name: 'hour', of: 'hour', from: 0, span: 24 },
  { name: 'day of the month', of: 'day', from: 1, span: 31 },
  { name: 'month', of: 'month', from: 1, names: monthNames, span: 12 },
  { name: 'weekday', of: 'dayOfWeek', from: 0, names: weekdayNames, span: 7 },
]

const shorthands: Readonly<Record<string, string>> = {
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
  '@monthly': '0 0 1 * *',
  '@weekly': '0 0 * * 0',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@hourly': '0 * * * *',
}

const lengthMax = 256

/**
 * Reads a cron expression of five fields (minute, hour, day of the month, month, weekday), or of six with the second in
 * front. Fields take `*`, numbers, names (MON, JAN), ranges, lists and steps; `@daily` and its like stand for whole ones.
 * @throws ForgeError FORGE_CRON_INVALID, with the position of the fault
 */
export function parseExpression(text: string): Fields {
  if (text.length > lengthMax)
    throw new ForgeError(
      'FORGE_CRON_INVALID',
      `It is ${text.length} characters long; the limit is ${lengthMax}.`,
    )
  const expression = shorthandOf(text.trim()) ?? text
  const parts = [...expression.matchAll(/\S+/g)]
  if (parts.length !== 5 && parts.length !== 6)
    throw new ForgeError(
      'FORGE_CRON_INVALID',
      `'${shown(text)}' has ${parts.length} fields; there are 5 (minute, hour, day, month, weekday), or 6 with the second in front.`,
    )
  const offset = kinds.length - parts.length
  const read = kinds.map((kind, at) => {
    const part = parts[at - offset]
    return part ? readField(kind, part[0], { text: expression, at: part.index }) : [0]
  })
  const [seconds, minutes, hours, days, months, weekdays] = read as [
    number[],
    number[],
    number[],
    number[],
    number[],
    number[],
  ]
  const restricts = (field: number): boolean => !parts[field - offset]?.[0].startsWith('*')
  const fields: Fields = {
    seconds,
    minutes,
    hours,
    days: new Set(days),
    months: new Set(months),
    weekdays: new Set(weekdays.map((day) => day % 7)),
    either: restricts(3) && restricts(5),
  }
  refuseSilence(fields, text)
  return fields
}

function shorthandOf(text: string): string | null {
  if (!text.startsWith('@')) return null
  const lower = text.toLowerCase()
  if (Object.hasOwn(shorthands, lower)) return shorthands[lower] as string
  throw new ForgeError(
    'FORGE_CRON_INVALID',
    `'${shown(text)}' is no shorthand; there are ${Object.keys(shorthands).join(', ')}.`,
  )
}

interface Place {
  readonly text: string
  readonly at: number
}

/** The parser's extensions (L, W, #, ?, +) are not taken. It reads item by item: a fault has its place then. */
function readField(kind: FieldKind, part: string, place: Place): number[] {
  const items = part.split(',').map((item, n, all) => {
    return { item, at: place.at + all.slice(0, n).join(',').length + Math.min(n, 1) }
  })
  const each = items.flatMap(({ item, at }) => {
    checkItem(kind, item, { text: place.text, at })
    const found = read(kind, item)
    if (!found)
      throw fault(kind, { text: place.text, at }, `'${shown(item)}' is out of range, or runs backwards`)
    return found
  })
  return [...new Set(each)].sort((one, other) => one - other)
}

function checkItem(kind: FieldKind, item: string, place: Place): void {
  const atom = `(?:\\d{1,3}${kind.names ? `|${kind.names.join('|')}` : ''})`
  if (!new RegExp(`^(?:\\*|${atom}(?:-${atom})?)(?:/\\d{1,3})?$`, 'i').test(item))
    throw fault(kind, place, `'${shown(item)}' is none of *, a value, a-b, with or without /step`)
  const step = Number(/\/(\d+)$/.exec(item)?.[1] ?? 1)
  if (step < 1 || step > kind.span)
    throw fault(kind, place, `a step of ${step} is out of range; for a fixed distance use { every }`)
}

/** Null: the parser refuses it. */
function read(kind: FieldKind, part: string): readonly number[] | null {
  try {
    const whole = kinds.map((each) => (each === kind ? part : '*')).join(' ')
    const allowed = new CronPattern(whole, undefined, { mode: '6-part', sloppyRanges: true })[kind.of]
    return allowed.flatMap((set, index) => (set ? [index + kind.from] : []))
  } catch {
    return null
  }
}

function fault(kind: FieldKind, { text, at }: Place, why: string): ForgeError {
  return new ForgeError(
    'FORGE_CRON_INVALID',
    `'${shown(text)}', position ${at + 1} (${kind.name}): ${why.replace(/\.$/, '')}.`,
  )
}

const shown = (text: string): string => text.slice(0, 80)

/** The calendar repeats itself after so many years, as long as no century comes between. */
const [yearFirst, yearLast] = [2024, 2051] as const
const dayMs = 86_400_000

/** True when the calendar day (UTC milliseconds of its midnight) is one of the expression's. */
export function allowsDay({ days, months, weekdays, either }: Fields, dayUtcMs: number): boolean {
  const date = new Date(dayUtcMs)
  if (!months.has(date.getUTCMonth() + 1)) return false
  const [day, weekday] = [days.has(date.getUTCDate()), weekdays.has(date.getUTCDay())]
  return either ? day || weekday : day && weekday
}

/** An expression that some year passes over is a mistake more often than a wish. Judged for all years, not from today. */
function refuseSilence(fields: Fields, text: string): void {
  const years: number[] = []
  for (let year = yearFirst; year <= yearLast; year++)
    if (!anyDay(fields, Date.UTC(year, 0, 1), Date.UTC(year + 1, 0, 1))) years.push(year)
  if (years.length === 0) return
  const never = years.length === yearLast - yearFirst + 1
  throw new ForgeError(
    'FORGE_CRON_INVALID',
    never
      ? `'${shown(text)}' names a date that no calendar has.`
      : `'${shown(text)}' is silent for a year and longer (${years[0]}, for example); use { at } for a single date, or a day that each year has.`,
  )
}

function anyDay(fields: Fields, from: number, to: number): boolean {
  for (let day = from; day < to; day += dayMs) if (allowsDay(fields, day)) return true
  return false
}
