import { ForgeError } from '../kernel/index.js'

/** Wall-clock time as if it were UTC: milliseconds since 1970 of a local date and time. */
export type LocalMs = number

const formats = new Map<string, Intl.DateTimeFormat>()
const formatsMax = 1_000

/**
 * A name of the IANA time zone database, as it is to be stored. Offsets such as +02:00 are none: they have no rules.
 * @throws ForgeError FORGE_TIMEZONE_UNKNOWN
 */
export function checkZone(zone: unknown): string {
  if (typeof zone === 'string' && zone.length <= 64 && /^[A-Za-z][A-Za-z0-9_+/-]*$/.test(zone)) {
    try {
      formatOf(zone)
      return zone
    } catch {
      // Said below.
    }
  }
  const shown = typeof zone === 'string' ? `'${zone.slice(0, 64)}'` : `of type ${typeof zone}`
  throw new ForgeError('FORGE_TIMEZONE_UNKNOWN', `The timezone is ${shown}.`)
}

function formatOf(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone)
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      calendar: 'iso8601',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    })
    if (formats.size >= formatsMax) formats.clear()
    formats.set(zone, format)
  }
  return format
}

/** What clocks in the zone show at this moment, to the second. */
export function localOf(zone: string, atMs: number): LocalMs {
  const part: Partial<Record<Intl.DateTimeFormatPartTypes, number>> = {}
  for (const { type, value } of formatOf(zone).formatToParts(atMs)) part[type] = Number(value)
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part
  return Date.UTC(year, month - 1, day, hour, minute, second)
}

const hourMs = 3_600_000
const halfDayMs = 12 * hourMs
/** Offsets that are kept in mind: asking for one costs more than all else. */
const offsetsMax = 64

/**
 * The clocks of one zone. An offset that is the same at the beginning and the end of half a day is the same in between: no
 * zone has changed its clocks to and fro within one.
 */
export class Zone {
  readonly #name: string
  readonly #offsets = new Map<number, number>()

  constructor(name: string) {
    this.#name = name
  }

  /** What clocks show at this moment. */
  local(atMs: number): LocalMs {
    const half = Math.floor(atMs / halfDayMs)
    const offset = this.#offsetAt(half)
    return offset === this.#offsetAt(half + 1) ? atMs + offset : localOf(this.#name, atMs)
  }

  /**
   * The first moment at which clocks have reached this local time. Where it comes twice that is the first time; where it is
   * skipped it is the moment of the jump.
   */
  instant(local: LocalMs): number {
    const half = Math.floor(local / halfDayMs)
    const offset = this.#offsetAt(half - 2)
    // Clocks are 26 hours apart at most. So all that could show this time lies in these four halves of days.
    let steady = true
    for (let n = -1; n <= 2 && steady; n++) steady = this.#offsetAt(half + n) === offset
    return steady ? local - offset : this.#search(local)
  }

  #search(local: LocalMs): number {
    const half = Math.floor(local / halfDayMs)
    const offsets = [-2, -1, 0, 1, 2].map((n) => this.#offsetAt(half + n))
    const [low, high] = [local - Math.max(...offsets), local - Math.min(...offsets)]
    for (const at of [low, high]) if (localOf(this.#name, at) === local) return at
    return this.#jump(local, [low - hourMs, high + hourMs])
  }

  /** The first second within these bounds at which the clock shows this time or a later one: it jumped over it. */
  #jump(local: LocalMs, bounds: readonly [number, number]): number {
    let [low, high] = bounds.map((ms) => Math.floor(ms / 1_000)) as [number, number]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (localOf(this.#name, middle * 1_000) >= local) high = middle
      else low = middle + 1
    }
    return low * 1_000
  }

  /** Local time minus UTC, in ms, at the beginning of this half of a day. */
  #offsetAt(half: number): number {
    let offset = this.#offsets.get(half)
    if (offset === undefined) {
      offset = localOf(this.#name, half * halfDayMs) - half * halfDayMs
      if (this.#offsets.size >= offsetsMax) this.#offsets.clear()
      this.#offsets.set(half, offset)
    }
    return offset
  }
}
