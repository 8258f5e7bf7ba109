import { ForgeError } from './errors.js'

type Unit = 'ms' | 's' | 'm' | 'h' | 'd'

/** Milliseconds as a number, or text with its unit: '250ms' '30s' '5m' '2h' '7d'. */
export type Duration = number | `${number}${Unit}`

const unitMs: Record<Unit, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Ten years: beyond it a duration is a mistake, and timestamps stay far from PostgreSQL's limits. */
const durationMsMax = 3_653 * 86_400_000

/**
 * The whole milliseconds of a duration.
 * @throws ForgeError FORGE_DURATION_INVALID for any other shape, below 0, or over ten years
 */
export function durationMs(value: unknown, name = 'The duration'): number {
  const ms = typeof value === 'string' ? textMs(value) : value
  if (typeof ms !== 'number' || !Number.isFinite(ms) || ms < 0 || ms > durationMsMax) {
    throw new ForgeError('FORGE_DURATION_INVALID', `${name} is ${show(value)}.`)
  }
  return Math.round(ms)
}

function textMs(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)(ms|s|m|h|d)$/.exec(text.slice(0, 40))
  return match && text.length <= 40 ? Number(match[1]) * unitMs[match[2] as Unit] : Number.NaN
}

function show(value: unknown): string {
  if (typeof value === 'string') return `'${value.slice(0, 40)}'`
  return typeof value === 'number' ? String(value) : `of type ${typeof value}`
}
