/*
 * Pictures of figures as SVG, written by hand: bars or lines over named groups, one colour per series, axes with units,
 * the value at each mark. The reader's colour scheme is followed by the picture itself.
 */
const size = { width: 760, height: 340 }
const plot = { left: 76, right: 16, top: 64, bottom: 56 }
const labelsMax = 5
const inner = {
  width: size.width - plot.left - plot.right,
  height: size.height - plot.top - plot.bottom,
}

const style = `
  text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .quiet, .value { fill: #59636e; font-size: 11px }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .s0 { --c: #0969da } .s1 { --c: #8c959f } .s2 { --c: #bc4c00 } .s3 { --c: #8250df }
  .bar, .dot { fill: var(--c) } .line { fill: none; stroke: var(--c); stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet, .value { fill: #9198a1 } .grid { stroke: #3d444d }
    .s0 { --c: #58a6ff } .s1 { --c: #848d97 } .s2 { --c: #f0883e } .s3 { --c: #bc8cff }
  }`

const escaped = (text) => String(text).replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`)
const at = (value) => Number(value.toFixed(1))

const label = (x, y, { text, name = '', anchor = 'middle' }) =>
  `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}"${name && ` class="${name}"`}>${escaped(text)}</text>`

/** 1,234 as 1.2k: a label of at most five characters. */
export function short(value) {
  for (const [unit, letter] of [
    [1e6, 'M'],
    [1e3, 'k'],
  ]) {
    if (value >= unit) return `${Number((value / unit).toPrecision(value >= 100 * unit ? 3 : 2))}${letter}`
  }
  return String(Number(value.toPrecision(3)))
}

/** Round numbers from 0 to at least `max`, at most six of them. */
export function ticksUpTo(max) {
  const top = max > 0 ? max : 1
  const power = 10 ** Math.floor(Math.log10(top / 5))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate * 5 >= top)
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, i) =>
    Number((i * step).toPrecision(12)),
  )
}

/**
 * @param given kind 'bars' or 'lines'; title; unit (of the values); axis (what the groups are, may be missing); groups
 * (their names); series ({ name, tone, values }: tone 0 to 3 is the colour, one value per group, null where there is none)
 */
export function chart({ kind, title, unit, axis, groups, series }) {
  const values = series.flatMap((one) => one.values).filter((value) => value !== null)
  const ticks = ticksUpTo(Math.max(0, ...values))
  const frame = {
    y: (value) => plot.top + inner.height * (1 - value / ticks.at(-1)),
    x: (group) => plot.left + (inner.width * (group + 0.5)) / groups.length,
    slot: inner.width / groups.length,
  }
  const draw = kind === 'lines' ? lines : bars
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img">`,
    `<title>${escaped(`${title}, ${unit}`)}</title>`,
    `<style>${style}\n</style>`,
    label(plot.left, 20, { text: title, name: 'title', anchor: 'start' }),
    ...legend(series),
    ...grid(ticks, frame, unit),
    ...groups.flatMap((group, i) => groupLabel(group, { x: frame.x(i), wide: frame.slot > 110 })),
    ...(axis ? [label(plot.left + inner.width / 2, size.height - 6, { text: axis, name: 'quiet' })] : []),
    ...series.flatMap((one, i) => draw(one, { i, frame, count: series.length })),
    '</svg>',
    '',
  ].join('\n')
}

function legend(series) {
  let x = plot.left
  return series.flatMap(({ name, tone }) => {
    const from = x
    x += 30 + name.length * 7
    return [
      `<rect class="bar s${tone}" x="${from}" y="32" width="11" height="11" rx="2"/>`,
      label(from + 16, 42, { text: name, anchor: 'start' }),
    ]
  })
}

function grid(ticks, { y }, unit) {
  const middle = plot.top + inner.height / 2
  return [
    `<text class="quiet" text-anchor="middle" transform="translate(16 ${middle}) rotate(-90)">${escaped(unit)}</text>`,
    ...ticks.flatMap((tick) => [
      `<line class="grid" x1="${plot.left}" x2="${plot.left + inner.width}" y1="${at(y(tick))}" y2="${at(y(tick))}"/>`,
      label(plot.left - 8, y(tick) + 4, { text: short(tick), name: 'quiet', anchor: 'end' }),
    ]),
  ]
}

/** A long name takes two lines where the groups stand close. */
function groupLabel(text, { x, wide }) {
  const space = wide ? -1 : text.indexOf(' ')
  const parts = space < 0 ? [text] : [text.slice(0, space), text.slice(space + 1)]
  return parts.map((part, i) => label(x, plot.top + inner.height + 16 + i * 14, { text: part }))
}

function bars({ values, tone }, { i, frame, count }) {
  const width = Math.min(64, (frame.slot * 0.8) / count)
  return values.flatMap((value, group) => {
    if (value === null) return []
    const [left, top] = [frame.x(group) + (i - count / 2) * width, frame.y(value)]
    const height = plot.top + inner.height - top
    return [
      `<rect class="bar s${tone}" x="${at(left + 1)}" y="${at(top)}" width="${at(width - 2)}" height="${at(height)}"/>`,
      label(left + width / 2, top - 4, { text: short(value), name: 'value' }),
    ]
  })
}

function lines({ values, tone }, { frame }) {
  const points = values.flatMap((value, group) =>
    value === null ? [] : [{ x: at(frame.x(group)), y: at(frame.y(value)), value }],
  )
  // Many values in a row would be written over each other: then the ends are enough.
  const isTold = (i) => points.length <= labelsMax || i === 0 || i === points.length - 1
  return [
    `<polyline class="line s${tone}" points="${points.map(({ x, y }) => `${x},${y}`).join(' ')}"/>`,
    ...points.flatMap(({ x, y, value }, i) => [
      `<circle class="dot s${tone}" cx="${x}" cy="${y}" r="3.5"/>`,
      ...(isTold(i) ? [label(x, y - 8, { text: short(value), name: 'value' })] : []),
    ]),
  ]
}
