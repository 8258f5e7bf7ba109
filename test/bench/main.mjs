/* The command line of the benchmark; bench.mjs starts it. */
import { appendFileSync, readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { renderAgain, writeDocument } from './document.mjs'
import { figuresOf, judge } from './medians.mjs'
import { runAll, surroundings } from './run.mjs'
import { scenarios } from './scenarios/index.mjs'
import { everySystem } from './systems.mjs'
import { targets } from './targets.mjs'
import { sentenceOf, tableOf } from './words.mjs'

const usage = `npm run bench [-- scenario …] [options]

Scenarios (all by default): ${scenarios.map(({ name }) => name).join(', ')}
  --reps n       repetitions, interleaved; figures are medians (3)
  --scale x      shorter runs: 0.1 takes a tenth of the jobs and of the seconds (1)
  --points a,b   only these points, by their names in the tables, as '2 processes'
  --systems a,b  only these: forge, plain SQL, graphile-worker, pg-boss
  --peers        installs and measures the peers too
  --out file     appends all rows as JSON lines
  --document     writes docs/performance/figures.json, the pictures and docs/performance.md from this run
  --render       runs nothing: renews page and pictures from docs/performance/figures.json
  --from file    runs nothing: takes the rows of an earlier --out
DATABASE_URL names a server of yours (a role that may create databases); else an embedded one is started.`

const options = {
  reps: { type: 'string', default: '3' },
  scale: { type: 'string', default: '1' },
  points: { type: 'string' },
  systems: { type: 'string' },
  peers: { type: 'boolean', default: false },
  out: { type: 'string' },
  document: { type: 'boolean', default: false },
  render: { type: 'boolean', default: false },
  from: { type: 'string' },
  help: { type: 'boolean', default: false },
}

function refuse(message) {
  process.stderr.write(`${message}\n\n${usage}\n`)
  process.exit(2)
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true })
    const unknown = positionals.filter((name) => !scenarios.some((scenario) => scenario.name === name))
    if (unknown.length > 0) throw new Error(`There is no scenario ${unknown.join(', ')}.`)
    const [reps, scale] = [Number(values.reps), Number(values.scale)]
    if (!Number.isInteger(reps) || reps < 1) throw new Error('--reps is a whole number from 1.')
    if (!(scale > 0 && scale <= 1)) throw new Error('--scale is above 0 and at most 1.')
    const chosen = scenarios.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
    const points = values.points?.split(/, ?(?!\d{3}\b)/)
    const known = chosen.flatMap(({ points }) => points.map(({ name }) => name))
    const missing = points?.filter((name) => !known.includes(name)) ?? []
    if (missing.length > 0)
      throw new Error(`There is no point ${missing.join(', ')}; there are: ${known.join('; ')}.`)
    const systems = values.systems?.split(',')
    const foreign = systems?.filter((name) => !everySystem.includes(name)) ?? []
    if (foreign.length > 0) throw new Error(`There is no system ${foreign.join(', ')}.`)
    return { ...values, reps, scale, chosen, points, systems }
  } catch (error) {
    return refuse(error.message)
  }
}

function print(rows) {
  const figures = figuresOf(rows)
  for (const { name, title } of scenarios) {
    const some = figures.filter(({ scenario }) => scenario === name)
    if (some.length > 0) process.stdout.write(`\n${title}\n${aligned(tableOf(some))}\n`)
  }
  const verdicts = targets
    .map((target) => judge(figures, target))
    .filter(({ verdict }) => verdict !== 'unknown')
  if (verdicts.length > 0) process.stdout.write('\nTargets\n')
  for (const found of verdicts) process.stdout.write(`  ${found.verdict.padEnd(7)} ${sentenceOf(found)}\n`)
}

function aligned(table) {
  const widths = table[0].map((_, i) => Math.max(...table.map((row) => (row.length > i ? row[i].length : 0))))
  // The text of what was not measured is no column.
  widths[2] = Math.max(...table.filter((row) => row.length === table[0].length).map((row) => row[2].length))
  const line = (row) => row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
  return table.map((row) => `  ${line(row).join('  ')}`).join('\n')
}

async function measure(given, stage) {
  // Late: these load the built package, which printing an earlier run does not need.
  const { openServer } = await import('./server.mjs')
  const peersFolder = given.peers ? (await import('./peers.mjs')).installPeers(stage) : null
  const server = await openServer(stage)
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const rows = []
  const report = (row) => {
    rows.push(row)
    if (given.out) appendFileSync(given.out, `${JSON.stringify(row)}\n`)
    if (row.kind === 'run') return
    const { scenario, point, system, rep, values, error, skipped } = row
    const told = values ? JSON.stringify(values) : (error ?? skipped)
    process.stderr.write(`${scenario}, ${point}, ${system} (${rep} of ${given.reps}): ${told}\n`)
  }
  report(surroundings({ server, version, reps: given.reps, scale: given.scale }))
  await runAll({
    scenarios: given.chosen,
    reps: given.reps,
    scale: given.scale,
    points: given.points,
    systems: given.systems,
    peersFolder,
    server,
    report,
  })
  return rows
}

const given = readArguments()
if (given.help) {
  process.stdout.write(`${usage}\n`)
  process.exit(0)
}
const tellWritten = (files) => files.forEach((file) => process.stdout.write(`Wrote ${file}\n`))
if (given.render) {
  tellWritten(renderAgain())
  process.exit(0)
}
const stage = new AsyncDisposableStack()
let ending = null
const end = () => (ending ??= stage.disposeAsync())
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => void end().finally(() => process.exit(130)))
// A database that is dropped ends its last idle connections, some of them inside of libraries.
process.on('uncaughtException', (error) => {
  if (['57P01', 'ECONNRESET'].includes(error.code)) return
  // A fault while ending, as of a terminal that is gone, must not begin the end again.
  if (ending !== null) process.exit(1)
  void end().finally(() => process.exit(1))
  process.stderr.write(`${error.stack}\n`)
})

const readRows = (file) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))

try {
  const rows = given.from ? readRows(given.from) : await measure(given, stage)
  print(rows)
  if (given.document) tellWritten(writeDocument(rows))
} finally {
  await end()
}
process.exit()
