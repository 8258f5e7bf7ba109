import { describe, expect, it } from 'vitest'
import { type DueSchedule, planTicks } from '../../src/schedules/plan.js'
import { readSchedule, timesOf } from '../../src/schedules/spec.js'

const minuteMs = 60_000
const at = (text: string): number => Date.parse(`2026-03-10T${text}Z`)

function schedule(
  rule: unknown,
  options: Record<string, unknown> = {},
  state: Partial<DueSchedule> = {},
): DueSchedule {
  const spec = readSchedule('plan', rule, { job: 'job', ...options })
  return { name: 'plan', spec, nextMs: at('12:00:00'), planned: true, lastMs: null, ...state }
}

/** Times of day of the ticks that fire, and of those that are only written down. */
function outcome(due: DueSchedule, nowMs: number) {
  const { ticks, nextMs } = planTicks(due, nowMs)
  const clock = (ms: number): string => new Date(ms).toISOString().slice(11, 19)
  return {
    fires: ticks.filter(({ missed }) => !missed).map(({ atMs }) => clock(atMs)),
    missed: ticks.filter(({ missed }) => missed).map(({ atMs }) => clock(atMs)),
    next: nextMs === null ? null : clock(nextMs),
  }
}

describe('what fires', () => {
  it('is the tick that is due, and nothing before it is', () => {
    const due = schedule('* * * * *')
    expect(outcome(due, at('11:59:59.999'))).toEqual({ fires: [], missed: [], next: '12:00:00' })
    expect(outcome(due, at('12:00:00'))).toEqual({ fires: ['12:00:00'], missed: [], next: '12:01:00' })
  })

  it('is all of 15 s, under any policy: leaders change in less', () => {
    for (const missed of ['none', 'last', 'all'])
      expect(outcome(schedule({ every: '5s' }, { missed }), at('12:00:15'))).toEqual({
        fires: ['12:00:00', '12:00:05', '12:00:10', '12:00:15'],
        missed: [],
        next: '12:00:20',
      })
  })

  it.each([
    ['none', []],
    ['last', ['12:09:00']],
    [
      'all',
      [
        '12:00:00',
        '12:01:00',
        '12:02:00',
        '12:03:00',
        '12:04:00',
        '12:05:00',
        '12:06:00',
        '12:07:00',
        '12:08:00',
        '12:09:00',
      ],
    ],
    [{ policy: 'all', limit: 3 }, ['12:07:00', '12:08:00', '12:09:00']],
    [{ policy: 'all', window: '4m' }, ['12:06:00', '12:07:00', '12:08:00', '12:09:00']],
    [{ policy: 'last', window: '30s' }, []],
  ])('after ten minutes with nobody there is what the policy says: %j', (missed, fires) => {
    const found = outcome(schedule('* * * * *', { missed }), at('12:09:40'))
    expect(found.fires).toEqual(fires)
    expect(found.missed).toHaveLength(10 - fires.length)
    expect(found.next).toBe('12:10:00')
  })

  it('after a year of seconds is bounded, and worked out in no time', () => {
    const due = schedule('* * * * * *', { missed: { policy: 'all', limit: 1_000 } })
    const since = performance.now()
    const { ticks, nextMs } = planTicks(due, due.nextMs + 365 * 24 * 60 * minuteMs)
    // Measured 25 ms.
    expect(performance.now() - since).toBeLessThan(2_000)
    expect(ticks.filter(({ missed }) => !missed)).toHaveLength(1_000 + 16)
    expect(ticks.filter(({ missed }) => missed)).toHaveLength(100)
    expect(nextMs).toBe(due.nextMs + 365 * 24 * 60 * minuteMs + 1_000)
    const order = ticks.map(({ atMs }) => atMs)
    expect(order).toEqual([...new Set(order)].sort((one, other) => one - other))
  })

  it('of one that was just written down is looked for from then on', () => {
    const due = schedule('* * * * *', { missed: 'all' }, { planned: false, nextMs: at('12:00:30') })
    expect(outcome(due, at('12:00:31'))).toEqual({ fires: [], missed: [], next: '12:01:00' })
  })

  it('does not come again when the rule is looked at anew', () => {
    const due = schedule('* * * * *', {}, { planned: false, nextMs: at('12:00:00'), lastMs: at('12:00:00') })
    expect(outcome(due, at('12:00:05'))).toEqual({ fires: [], missed: [], next: '12:01:00' })
  })

  it('of a single date is that, once; one that has passed falls to the policy', () => {
    const once = { at: new Date(at('12:00:00')) }
    const fresh = { planned: false, nextMs: at('11:00:00') }
    expect(outcome(schedule(once, {}, fresh), at('11:00:00'))).toEqual({
      fires: [],
      missed: [],
      next: '12:00:00',
    })
    expect(outcome(schedule(once), at('12:00:01'))).toEqual({ fires: ['12:00:00'], missed: [], next: null })
    const late = { planned: false, nextMs: at('13:00:00') }
    expect(outcome(schedule(once, {}, late), at('13:00:00'))).toEqual({
      fires: [],
      missed: ['12:00:00'],
      next: null,
    })
    expect(outcome(schedule(once, { missed: 'last' }, late), at('13:00:00')).fires).toEqual(['12:00:00'])
    const done = { ...late, lastMs: at('12:00:00') }
    expect(outcome(schedule(once, { missed: 'last' }, done), at('13:00:00'))).toEqual({
      fires: [],
      missed: [],
      next: null,
    })
  })

  it('keeps to start and end, both of them included', () => {
    const options = { start: '2026-03-10T12:02:00Z', end: '2026-03-10T12:03:00Z', missed: 'all' }
    const fresh = { planned: false, nextMs: at('12:00:00') }
    expect(outcome(schedule('* * * * *', options, fresh), at('12:00:00')).next).toBe('12:02:00')
    expect(outcome(schedule('* * * * *', options), at('12:30:00'))).toEqual({
      fires: ['12:02:00', '12:03:00'],
      missed: [],
      next: null,
    })
  })

  it('is spread by jitter: the same for one tick, different between ticks, within its bounds', () => {
    const due = schedule('* * * * *', { jitter: '30s', missed: 'all' })
    const runs = (): (number | null)[] => planTicks(due, at('12:09:40')).ticks.map(({ runAtMs }) => runAtMs)
    expect(runs()).toEqual(runs())
    const delays = planTicks(due, at('12:09:40')).ticks.map(({ atMs, runAtMs }) => (runAtMs ?? 0) - atMs)
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...delays)).toBeLessThanOrEqual(30_000)
    expect(new Set(delays).size).toBeGreaterThan(5)
    expect(planTicks(schedule('* * * * *'), at('12:00:00')).ticks[0]?.runAtMs).toBeNull()
  })
})

describe('the moments of a fixed distance', () => {
  it('are counted from 1970, or from the start', () => {
    const quarter = timesOf(readSchedule('q', { every: '15m' }, { job: 'job' }))
    expect(quarter.after(at('12:00:00'))).toBe(at('12:15:00'))
    const own = timesOf(readSchedule('q', { every: '15m' }, { job: 'job', start: '2026-03-10T12:04:00Z' }))
    expect([own.after(at('11:00:00')), own.after(at('12:04:00')), own.before(at('12:19:00'))]).toEqual([
      at('12:04:00'),
      at('12:19:00'),
      at('12:04:00'),
    ])
  })
})
