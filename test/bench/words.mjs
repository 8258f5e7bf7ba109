/* How figures are called and written, on the terminal and on the page alike. */
import { scenarios } from './scenarios/index.mjs'

const metrics = {
  rate: 'jobs/s',
  cpuUs: 'CPU µs/job',
  walBytes: 'WAL B/job',
  rssMib: 'memory MiB',
  p50: 'call p50 ms',
  p99: 'call p99 ms',
  startP50: 'start p50 ms',
  startP99: 'start p99 ms',
  enqueueP50: 'enqueue p50 ms',
  lost: 'not started',
  waiting: 'not started',
  lastToFirst: 'last/first tenth',
  ofIdeal: 'of ideal',
  serverCpuPercent: 'server CPU %',
  workerCpuPercent: 'worker CPU %',
  sentShare: 'sent in time',
  startedShare: 'started in time',
  statements: 'statements/s',
  transactions: 'transactions/s',
}

/** The metrics of some figures that a table shows, in the order above. */
export function columnsOf(figures) {
  const present = new Set(figures.flatMap(({ values }) => Object.keys(values ?? {})))
  return Object.keys(metrics).filter((metric) => present.has(metric))
}

export const metricName = (metric) => metrics[metric] ?? metric

export function text(value) {
  if (value == null) return '–'
  return value >= 1_000 ? Math.round(value).toLocaleString('en') : String(value)
}

export const titleOf = (name) => scenarios.find((scenario) => scenario.name === name)?.title ?? name

/** One line about a judged target: what was measured, unless nothing was, and what is wanted. */
export function sentenceOf({ scenario, point, metric, against, value, must, aim, atMost }) {
  const ratio = value === null ? `× ${against}` : `${text(value)} × ${against}`
  const measured = against === null ? text(value) : ratio
  const limits = Object.entries({ must, aim }).filter(([, limit]) => limit !== undefined)
  const wanted = limits.map(([word, limit]) => `${word} ${text(limit)}`).join(', ')
  return `${titleOf(scenario)}, ${point}: ${metricName(metric)} ${measured} (${atMost ? 'at most' : 'at least'}: ${wanted})`
}

/** Rows of a table, the head first: one line per point and system. */
export function tableOf(figures) {
  const columns = columnsOf(figures)
  const head = ['', 'system', ...columns.map(metricName)]
  return [
    head,
    ...figures.map(({ point, system, values, missing }) => [
      point,
      system,
      ...(values ? columns.map((metric) => text(values[metric])) : [`not measured: ${missing}`]),
    ]),
  ]
}
