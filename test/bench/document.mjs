/*
 * docs/performance.md and its pictures, all from one file of figures: `npm run bench -- --document` writes the figures and
 * renders them, and a test renders them again and compares. The words of the page stay; what stands between the marks
 * `<!-- begin: x -->` and `<!-- end: x -->` is replaced.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { chart } from './charts.mjs'
import { figuresOf, judge, valueOf } from './medians.mjs'
import { scenarios } from './scenarios/index.mjs'
import { everySystem, peerNames } from './systems.mjs'
import { targets } from './targets.mjs'
import { metricName, sentenceOf, tableOf, text } from './words.mjs'

const docs = fileURLToPath(new URL('../../docs/', import.meta.url))
const pageFile = path.join(docs, 'performance.md')
const folder = path.join(docs, 'performance')
const figuresFile = path.join(folder, 'figures.json')

/** @throws Error when runs of different surroundings are among the rows */
export function dataOf(rows) {
  const runs = rows.filter(({ kind }) => kind === 'run')
  const [first] = runs
  if (!first) throw new Error('The rows tell of no run.')
  for (const name of ['forge', 'node', 'machine', 'scale']) {
    const told = new Set(runs.map((run) => String(run[name])))
    if (told.size > 1)
      throw new Error(`Runs with different ${name} do not fit on one page: ${[...told].join(', ')}.`)
  }
  return { run: { ...first, reps: Math.min(...runs.map(({ reps }) => reps)) }, figures: figuresOf(rows) }
}

/** One figure per line, so that a new run is read as a difference. */
function textOf({ run, figures }) {
  if (figures.length === 0) return `{\n  "run": ${JSON.stringify(run)},\n  "figures": []\n}\n`
  const lines = figures.map((figure) => `    ${JSON.stringify(figure)}`)
  return `{\n  "run": ${JSON.stringify(run)},\n  "figures": [\n${lines.join(',\n')}\n  ]\n}\n`
}

/** @returns the files written */
export const writeDocument = (rows) => writeAll(dataOf(rows))

/** The same from the figures that are there, after a change of words or pictures. */
export const renderAgain = () => writeAll(JSON.parse(readFileSync(figuresFile, 'utf8')))

function writeAll(data) {
  const pictures = picturesOf(data)
  mkdirSync(folder, { recursive: true })
  for (const name of readdirSync(folder)) if (name.endsWith('.svg')) rmSync(path.join(folder, name))
  const files = { [figuresFile]: textOf(data) }
  for (const [name, svg] of Object.entries(pictures)) files[path.join(folder, name)] = svg
  files[pageFile] = pageOf(readFileSync(pageFile, 'utf8'), data)
  for (const [file, content] of Object.entries(files)) writeFileSync(file, content)
  return Object.keys(files)
}

/** The page with its marked parts renewed. */
export function pageOf(page, data) {
  const parts =
    data.run === null
      ? emptyParts
      : { settings: settingsOf(data), behind: behindOf(data), figures: sections(data) }
  return Object.entries(parts).reduce((text, [name, part]) => {
    const [begin, end] = [`<!-- begin: ${name} -->`, `<!-- end: ${name} -->`]
    if (!text.includes(begin) || !text.includes(end)) throw new Error(`The page has no marks for ${name}.`)
    const [from, to] = [text.indexOf(begin) + begin.length, text.indexOf(end)]
    return `${text.slice(0, from)}\n${part}\n${text.slice(to)}`
  }, page)
}

const none = 'Not measured yet.'
const emptyParts = { settings: none, behind: none, figures: none }

function settingsOf({ run }) {
  const server = Object.entries(run.settings).map(([name, value]) => `${name} ${value}`)
  const rows = [
    ['forge', `${run.forge}, built, default options`],
    ['Node', run.node],
    ['machine', run.machine],
    ['PostgreSQL', `${run.server}: ${server.join(', ')}`],
    ['repetitions', `${run.reps}, interleaved; medians`],
    ['length', run.scale === 1 ? 'full' : `${run.scale} of the full length: a trial run`],
    ['measured', run.at.slice(0, 10)],
  ]
  return markdown([['', ''], ...rows])
}

/** Targets that are missed, and where another queue is better in what a scenario is about. */
function behindOf({ figures }) {
  const judged = targets.map((target) => judge(figures, target))
  const list = (verdict) =>
    judged.filter((one) => one.verdict === verdict).map((one) => `- ${sentenceOf(one)}`)
  const parts = [
    ['Behind what it must reach:', list('behind')],
    ['Behind another queue:', peersAhead(figures)],
    ['Short of an aim:', [...list('short'), ...list('met').filter((line) => line.includes('aim'))]],
    ['Not measured:', list('unknown')],
  ].filter(([, lines]) => lines.length > 0)
  if (parts.length === 0) return 'In this run forge reached every target.'
  return parts.map(([head, lines]) => `${head}\n\n${lines.join('\n')}`).join('\n\n')
}

function peersAhead(figures) {
  return scenarios.flatMap(({ name: scenario, title, metric, better, points }) =>
    points.flatMap(({ name: point }) => {
      const own = valueOf(figures, { scenario, point, metric })
      return peerNames.flatMap((system) => {
        const value = valueOf(figures, { scenario, point, system, metric })
        if (own === null || value === null) return []
        const ahead = better === 'higher' ? value > own : value < own
        return ahead
          ? [`- ${title}, ${point}: ${metricName(metric)} ${text(own)}, ${system} ${text(value)}`]
          : []
      })
    }),
  )
}

function sections(data) {
  const measured = scenarios.filter(({ name }) => data.figures.some(({ scenario }) => scenario === name))
  return measured
    .map(({ name, title, about }) => {
      const figures = data.figures.filter(({ scenario }) => scenario === name)
      const picture = picturesOf(data)[`${name}.svg`] ? `![${title}](performance/${name}.svg)\n\n` : ''
      return `### ${title}\n\n${about}\n\n${picture}${markdown(tableOf(figures))}\n\n    npm run bench -- ${name}`
    })
    .join('\n\n')
}

function markdown([head, ...rows]) {
  const line = (cells) => `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** One picture per scenario that has figures: { 'drain.svg': text }. */
export function picturesOf({ figures }) {
  return Object.fromEntries(
    scenarios.flatMap((scenario) => {
      const some = figures.filter((figure) => figure.scenario === scenario.name && figure.values)
      return some.length === 0 ? [] : [[`${scenario.name}.svg`, chart(pictureOf(scenario, some))]]
    }),
  )
}

function pictureOf({ title, metric, chart: wanted = {}, points }, figures) {
  const { kind = 'bars', metrics = [metric], axis, unit = metricName(metric) } = wanted
  const systems = [...new Set(figures.map(({ system }) => system))]
  const of = (system, point) =>
    figures.find((figure) => figure.system === system && figure.point === point)?.values ?? {}
  const names = points.map(({ name }) => name)
  const seriesOf = (pick) =>
    systems.map((name) => ({
      name,
      // The same colour on every picture.
      tone: everySystem.indexOf(name),
      values: pick(name).map((value) => value ?? null),
    }))
  const common = { kind: kind === 'tenths' ? 'lines' : kind, title, axis, unit }
  if (kind === 'tenths') {
    const groups = Array.from({ length: 10 }, (_, i) => String(i + 1))
    return {
      ...common,
      groups,
      series: seriesOf((name) => groups.map((_, i) => of(name, names[0]).tenths?.[i])),
    }
  }
  if (metrics.length > 1) {
    const series = seriesOf((name) => metrics.map((one) => of(name, names[0])[one]))
    return { ...common, groups: metrics.map(metricName), series }
  }
  return {
    ...common,
    groups: names,
    series: seriesOf((name) => names.map((point) => of(name, point)[metric])),
  }
}
