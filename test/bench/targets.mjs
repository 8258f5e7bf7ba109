/*
 * What the project wants of its speed, as data: `must` is a gate, `aim` the hope. A target compares forge's figure with that
 * of the best peer, of one system, of another point of its own scenario, or stands alone. `atMost`: less is better.
 */
import { beside } from './scenarios/drain.mjs'

const rate = (scenario, point, more) => ({ scenario, point, metric: 'rate', ...more })

const incoming = [
  rate('enqueue', '1 producer', { of: 'best peer', must: 1.5, aim: 2.4 }),
  rate('enqueue', '1 producer', { of: 'plain SQL', aim: 0.85 }),
  { scenario: 'enqueue', point: '1 producer', metric: 'cpuUs', of: 'best peer', must: 0.5, atMost: true },
  rate('enqueue', '10 producers', { of: 'best peer', must: 5, aim: 9 }),
  rate('bulk', 'calls of 5,000', { of: 'graphile-worker', must: 1.5 }),
  rate('bulk', 'calls of 5,000', { of: 'plain SQL', aim: 0.9 }),
]

const outgoing = [
  rate('drain', '1 process', { of: 'graphile-worker', must: 2 }),
  rate('drain', '1 process', { of: 'plain SQL', aim: 0.8 }),
  { scenario: 'drain', point: '1 process', metric: 'cpuUs', of: 'graphile-worker', must: 0.6, atMost: true },
  { scenario: 'drain', point: '1 process', metric: 'rssMib', must: 160, aim: 140, atMost: true },
  rate('drain', '2 processes', { of: { point: '1 process' }, must: 1, aim: 1.3 }),
  rate('backlog', '1,000,000', { of: { point: '10,000' }, must: 0.9, aim: 0.95 }),
  ...beside.points
    .slice(1)
    .map(({ name }) => rate('beside', name, { of: { point: 'empty table' }, must: 0.9, aim: 0.95 })),
  rate('snapshot', 'held', { of: { point: 'free' }, must: 0.75, aim: 0.9 }),
  { scenario: 'snapshot', point: 'held', metric: 'lastToFirst', must: 0.8 },
  { scenario: 'long', point: '1,000,000', metric: 'lastToFirst', must: 0.8, aim: 0.95 },
]

const quick = { scenario: 'latency', point: 'idle worker', of: 'graphile-worker', must: 1, atMost: true }
const standing = { scenario: 'idle', point: 'no jobs', atMost: true }

const starting = [
  { ...quick, metric: 'startP50' },
  { ...quick, metric: 'startP99' },
  { scenario: 'urgent', point: 'full queue', metric: 'startP99', must: 100, atMost: true },
  { scenario: 'steady', point: '500/s', metric: 'startP99', must: 100, aim: 25, atMost: true },
  { scenario: 'steady', point: '500/s', metric: 'startedShare', must: 0.99 },
  {
    scenario: 'steady',
    point: '500/s',
    metric: 'serverCpuPercent',
    of: 'best peer',
    must: 0.7,
    atMost: true,
  },
  { ...standing, metric: 'statements', must: 1, aim: 0.6 },
  { ...standing, metric: 'transactions', must: 2 },
  { ...standing, metric: 'rssMib', must: 80, aim: 70 },
]

export const targets = [...incoming, ...outgoing, ...starting]
