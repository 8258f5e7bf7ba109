import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { chart, short, ticksUpTo } from '../bench/charts.mjs'
import { dataOf, pageOf, picturesOf } from '../bench/document.mjs'
import { judge } from '../bench/medians.mjs'
import { scenarios } from '../bench/scenarios/index.mjs'
import { targets } from '../bench/targets.mjs'
import { page, root } from './pages.js'

const folder = 'docs/performance'

const run = {
  kind: 'run',
  at: '2026-01-02T03:04:05.000Z',
  forge: '0.1.0',
  node: '24.0.0',
  machine: '2 cores',
  server: 'a server',
  settings: { fsync: 'on' },
  reps: 3,
  scale: 1,
}

function figure(
  system: string,
  values: object,
  { scenario = 'drain', point = '1 process', rep = 1 } = {},
): object {
  return { kind: 'figure', scenario, point, system, rep, values }
}

describe('docs/performance.md', () => {
  const data = JSON.parse(page(`${folder}/figures.json`))

  it('says what the file of figures says', () => {
    const text = page('docs/performance.md')
    expect(pageOf(text, data)).toBe(text)
  })

  it('shows the pictures of those figures and no others', () => {
    const there = readdirSync(new URL(folder, root)).filter((name) => name.endsWith('.svg'))
    const stored = Object.fromEntries(there.map((name) => [name, page(`${folder}/${name}`)]))
    expect(stored).toEqual(picturesOf(data))
  })
})

describe('the page of a run', () => {
  const rows = [
    run,
    ...[900, 1_000, 5_000].map((rate, i) => figure('forge', { rate, cpuUs: 30 }, { rep: i + 1 })),
    figure('graphile-worker', { rate: 2_000, cpuUs: 60 }),
    { kind: 'figure', scenario: 'drain', point: '2 processes', system: 'forge', rep: 1, error: 'it broke' },
    figure(
      'forge',
      { rate: 1, tenths: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] },
      { scenario: 'long', point: '1,000,000' },
    ),
  ]
  const text = pageOf(page('docs/performance.md'), dataOf(rows))

  it('shows medians of the repetitions', () => {
    expect(text).toContain('| 1 process | forge | 1,000 | 30 |')
  })

  it('names what misses its target, and the queue that is ahead', () => {
    const behind = /<!-- begin: behind -->(.*)<!-- end: behind -->/s.exec(text)?.[1] ?? ''
    expect(behind).toContain('Drain, 1 process: jobs/s 0.5 × graphile-worker (at least: must 2)')
    expect(behind).toContain('Drain, 1 process: jobs/s 1,000, graphile-worker 2,000')
    expect(behind).not.toContain('CPU µs/job 0.5')
  })

  it('says what could not be measured', () => {
    expect(text).toContain('| 2 processes | forge | not measured: it broke |')
    expect(text).toContain('- Drain, 2 processes: jobs/s × 1 process')
  })

  it('stays the same when it is made again', () => {
    expect(pageOf(text, dataOf(rows))).toBe(text)
  })

  it('refuses to mix runs of different machines', () => {
    expect(() => dataOf([...rows, { ...run, machine: '64 cores' }])).toThrow('different machine')
  })
})

describe('a target', () => {
  const target = {
    scenario: 'drain',
    point: '1 process',
    metric: 'rate',
    of: 'plain SQL',
    must: 0.5,
    aim: 0.8,
  }
  const verdictOf = (forge: number, extra = {}) =>
    judge(dataOf([run, figure('forge', { rate: forge }), figure('plain SQL', { rate: 100 })]).figures, {
      ...target,
      ...extra,
    }).verdict

  it.each([
    [40, 'behind'],
    [50, 'met'],
    [80, 'aim'],
  ])('at %d of 100 is %s', (rate, verdict) => {
    expect(verdictOf(rate)).toBe(verdict)
  })

  it('turns round where less is better', () => {
    expect(verdictOf(40, { atMost: true })).toBe('aim')
    expect(verdictOf(60, { atMost: true })).toBe('behind')
  })

  it('without a must is short until it reaches its aim', () => {
    expect(verdictOf(40, { must: undefined })).toBe('short')
  })

  it('is unknown where one of both was not measured', () => {
    expect(verdictOf(40, { point: '2 processes' })).toBe('unknown')
  })

  it('names a scenario and a point that there are', () => {
    const points = scenarios.flatMap(({ name, points }) => points.map((point) => `${name}, ${point.name}`))
    const wanted = targets.flatMap(({ scenario, point, of }) => [
      `${scenario}, ${point}`,
      ...(typeof of === 'object' ? [`${scenario}, ${of.point}`] : []),
    ])
    expect(wanted.filter((name) => !points.includes(name))).toEqual([])
  })
})

describe('a picture', () => {
  const given = {
    title: 'Bars & lines',
    unit: 'jobs/s',
    axis: 'processes',
    groups: ['1', '2'],
    series: [{ name: 'forge', tone: 0, values: [10, null] }],
  }

  it.each(['bars', 'lines'])('of %s names its axes and units, and leaves out what is missing', (kind) => {
    const svg = chart({ ...given, kind })
    expect(svg).toContain('<title>Bars &#38; lines, jobs/s</title>')
    expect(svg).toContain('>jobs/s<')
    expect(svg).toContain('>processes<')
    expect(svg.match(/class="(bar|dot) s0"[^>]* (height|r)="/g)).toHaveLength(2)
    expect(svg).not.toMatch(/NaN|undefined|null/)
  })

  it('follows the colour scheme of its reader', () => {
    expect(chart({ ...given, kind: 'bars' })).toContain('@media (prefers-color-scheme: dark)')
  })

  it('has an axis of round numbers that reaches over the largest value', () => {
    expect(ticksUpTo(47_000)).toEqual([0, 10_000, 20_000, 30_000, 40_000, 50_000])
    expect(ticksUpTo(1)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1])
    expect(ticksUpTo(0.07)).toEqual([0, 0.02, 0.04, 0.06, 0.08])
  })

  it('writes numbers shortly', () => {
    expect([0.123456, 9.87, 999, 1_234, 47_200, 128_000, 1_000_000].map(short)).toEqual([
      '0.123',
      '9.87',
      '999',
      '1.2k',
      '47k',
      '128k',
      '1M',
    ])
  })
})
