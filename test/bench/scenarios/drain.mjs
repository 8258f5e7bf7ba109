/* How fast waiting jobs are worked off, from an empty table and from full ones. Handlers do nothing unless it says so. */
import { withClient } from '../server.mjs'
import { drain as workOff } from '../workers.mjs'
import { fill } from './payloads.mjs'

const rates = { metric: 'rate', better: 'higher' }

export const drain = {
  name: 'drain',
  title: 'Drain',
  about:
    '100,000 waiting jobs (200,000 for two and four processes, 400,000 for eight), worked off; finished jobs are kept where ' +
    'the system can.',
  systems: ['forge', 'plain SQL', 'peers'],
  ...rates,
  chart: { kind: 'lines', axis: 'worker processes' },
  // What all of them hold at the start, and is not counted, stays a small part of the whole; and so does what each new process
  // spends on compiling its code.
  points: [
    { name: '1 process', workers: 1, jobs: 100_000 },
    { name: '2 processes', workers: 2, jobs: 200_000 },
    { name: '4 processes', workers: 4, jobs: 200_000 },
    { name: '8 processes', workers: 8, jobs: 400_000 },
  ],
  async run(bench) {
    const total = bench.n(bench.point.jobs)
    await fill(bench, { n: total })
    return workOff(bench, { total, workers: bench.point.workers })
  },
}

export const backlog = {
  name: 'backlog',
  title: 'Backlog',
  about: 'The rate of the first five seconds (or of all, where that is less) with so many jobs waiting.',
  systems: ['forge', 'plain SQL', 'peers'],
  ...rates,
  chart: { kind: 'lines', axis: 'jobs waiting' },
  points: [10_000, 100_000, 1_000_000].map((size) => ({ name: size.toLocaleString('en'), size })),
  async run(bench) {
    const total = bench.n(bench.point.size)
    await fill(bench, { n: total })
    return workOff(bench, { total, msMax: bench.ms(5_000) })
  },
}

const crowd = (kind, n) => ({ name: `${n.toLocaleString('en')} ${kind}`, kind, n, extra: { [kind]: true } })

export const beside = {
  name: 'beside',
  title: 'Beside jobs that stay',
  about:
    '200,000 jobs worked off beside finished jobs, jobs of the future, of a paused queue, blocked by a limit, and of ' +
    'names this process does not know; and 200,000 jobs spread over 200 names.',
  systems: ['forge'],
  ...rates,
  points: [
    { name: 'empty table', extra: {} },
    crowd('history', 1_000_000),
    crowd('future', 300_000),
    crowd('paused', 300_000),
    crowd('blocked', 300_000),
    crowd('foreign', 1_000_000),
    { name: '200 lanes', extra: { lanes: 200 } },
  ],
  async run(bench) {
    const { kind, n } = bench.point
    // Late: the page is made without the built package.
    if (kind) await (await import('../forge.mjs')).crowds[kind](bench.ctx, bench.n(n))
    const total = bench.n(200_000)
    await fill(bench, { n: total })
    return workOff(bench, { total })
  },
}

export const limits = {
  name: 'limits',
  title: 'Limits in the whole cluster',
  about:
    '20,000 jobs by two processes: without a limit, with a hundred of them at once, and with one at once of each of ' +
    '1,000 keys. Handlers do nothing, so that all there is to see is what the limit costs.',
  systems: ['forge'],
  ...rates,
  points: [
    { name: 'no limit', extra: {} },
    { name: '100 at once', extra: { atOnce: 100 } },
    { name: '1 of each key', extra: { atOnce: 1, keys: 1_000 } },
  ],
  async run(bench) {
    const total = bench.n(20_000)
    await fill(bench, { n: total })
    return workOff(bench, { total, workers: 2 })
  },
}

async function inTenths(bench, total) {
  const markEvery = Math.floor(total / 10)
  const { tenths, ...values } = await workOff(bench, { total, msMax: 300_000, markEvery })
  return { ...values, tenths, lastToFirst: tenths.length < 10 ? null : tenths.at(-1) / tenths[0] }
}

export const snapshot = {
  name: 'snapshot',
  title: 'An old snapshot is held',
  about:
    '200,000 jobs by one process while another session holds a REPEATABLE READ snapshot, as a backup does: nothing that ' +
    'was deleted since can be cleaned up.',
  systems: ['forge', 'plain SQL', 'peers'],
  ...rates,
  points: [
    { name: 'free', held: false },
    { name: 'held', held: true },
  ],
  async run(bench) {
    const total = bench.n(200_000)
    await fill(bench, { n: total })
    return withClient(bench.ctx.url, async (client) => {
      if (bench.point.held) {
        await client.query('begin isolation level repeatable read')
        await client.query('select 1 from pg_class limit 1')
      }
      return inTenths(bench, total)
    })
  },
}

export const long = {
  name: 'long',
  title: 'A million in one go',
  about: 'The rate of each tenth of 1,000,000 jobs, one process, autovacuum at its defaults.',
  systems: ['forge', 'plain SQL', 'peers'],
  ...rates,
  chart: { kind: 'tenths', axis: 'tenth of the jobs' },
  points: [{ name: '1,000,000' }],
  async run(bench) {
    const total = bench.n(1_000_000)
    await fill(bench, { n: total })
    return inTenths(bench, total)
  },
}

export const handlers = {
  name: 'handlers',
  title: 'Handlers that take time',
  about:
    'Handlers that wait so long, ten at once (said by the option `concurrency`); ideal is ten divided by the time.',
  systems: ['forge'],
  metric: 'ofIdeal',
  better: 'higher',
  points: [1, 10, 100].map((handlerMs) => ({
    name: `${handlerMs} ms`,
    handlerMs,
    options: { concurrency: 10 },
  })),
  async run(bench) {
    const { handlerMs, options } = bench.point
    const ideal = (options.concurrency * 1_000) / handlerMs
    const total = Math.ceil((ideal * bench.ms(8_000)) / 1_000)
    await fill(bench, { n: total })
    const values = await workOff(bench, { total, handlerMs })
    return { ...values, ofIdeal: values.rate / ideal }
  },
}
