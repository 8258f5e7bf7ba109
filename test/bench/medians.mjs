/* From the rows of a run to medians and ratios. Pure. */
import { median, round } from './measure.mjs'
import { peerNames } from './systems.mjs'

/** Medians over the repetitions, one entry per scenario, point and system, in the order in which they were measured. */
export function figuresOf(rows) {
  const groups = new Map()
  for (const row of rows.filter(({ kind }) => kind === 'figure')) {
    const key = JSON.stringify([row.scenario, row.point, row.system])
    groups.set(key, [...(groups.get(key) ?? []), row])
  }
  return [...groups.values()].map((group) => {
    const [{ scenario, point, system }] = group
    const good = group.filter(({ values }) => values)
    if (good.length === 0) return { scenario, point, system, missing: group[0].error ?? group[0].skipped }
    return { scenario, point, system, repetitions: good.length, values: mediansOf(good) }
  })
}

function mediansOf(rows) {
  const names = [...new Set(rows.flatMap(({ values }) => Object.keys(values)))]
  return Object.fromEntries(
    names.map((name) => {
      const found = rows.map(({ values }) => values[name]).filter((value) => value != null)
      if (!Array.isArray(found[0])) return [name, round(median(found))]
      return [
        name,
        found[0].map((_, i) => round(median(found.map((list) => list[i] ?? null).filter(Number)))),
      ]
    }),
  )
}

/** @returns null where it was not measured */
export function valueOf(figures, { scenario, point, system = 'forge', metric }) {
  const found = figures.find(
    (figure) => figure.scenario === scenario && figure.point === point && figure.system === system,
  )
  return found?.values?.[metric] ?? null
}

/** The value that forge's is compared with, and whose it is. */
function referenceOf(figures, target) {
  const { of, scenario, point, metric, atMost } = target
  if (of.point) return { name: of.point, value: valueOf(figures, { scenario, point: of.point, metric }) }
  const known = (of === 'best peer' ? peerNames : [of])
    .map((name) => ({ name, value: valueOf(figures, { scenario, point, system: name, metric }) }))
    .filter(({ value }) => value !== null)
  known.sort((a, b) => (atMost ? a.value - b.value : b.value - a.value))
  return known[0] ?? { name: of, value: null }
}

/**
 * One target against the figures. `value` is forge's own, or its ratio to what `of` names.
 * verdict: 'unknown' (not measured), 'behind' (misses `must`), 'short' (misses the aim, and there is no must), 'met' (the
 * must, not the aim), 'aim' (reaches both).
 */
export function judge(figures, target) {
  const own = valueOf(figures, target)
  const reference = target.of ? referenceOf(figures, target) : { name: null, value: 1 }
  const value = own === null || !reference.value ? null : round(own / reference.value)
  const reaches = (limit) => limit !== undefined && (target.atMost ? value <= limit : value >= limit)
  const verdict = value === null ? 'unknown' : verdictOf(target, reaches)
  return { ...target, value, against: reference.name, verdict }
}

function verdictOf({ must, aim }, reaches) {
  if (must !== undefined && !reaches(must)) return 'behind'
  if (aim !== undefined && reaches(aim)) return 'aim'
  return must === undefined ? 'short' : 'met'
}
