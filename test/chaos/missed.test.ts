import { setTimeout as pause } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { Missed } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { long } from './nodes.js'

const database = useDatabase()
const minutes = 10
const policies: Readonly<Record<string, readonly [Missed, number]>> = {
  none: ['none', 0],
  last: ['last', 1],
  all: ['all', minutes],
  two: [{ policy: 'all', limit: 2 }, 2],
  recent: [{ policy: 'all', window: '2m' }, 2],
}

function attach() {
  const bundle = setup(database)
  for (const [name, [missed]] of Object.entries(policies))
    bundle.forge.cron(`missed.${name}`, '* * * * *', { missed, run: () => {} })
  return bundle.attach({ roles: ['worker', 'scheduler'] })
}

async function now(): Promise<Date> {
  const [row] = (await database.query<{ at: Date }>('select clock_timestamp() as at')) as [{ at: Date }]
  return row.at
}

async function allPlanned(): Promise<boolean> {
  const [row] = await database.query<{ n: number }>(
    'select count(*)::int as n from forge.schedule where planned and next_at > clock_timestamp()',
  )
  return row?.n === Object.keys(policies).length
}

/** The short form of this, in test/schedules/ticks.test.ts, moves the schedules ten minutes back instead. */
it.skipIf(!long)(
  `after ${minutes} real minutes without a scheduler, each policy makes exactly its jobs`,
  { timeout: (minutes + 3) * 60_000 },
  async () => {
    // Half a minute away from any tick, so that the count of them is the count of minutes.
    const intoMinute = (await now()).getTime() % 60_000
    await pause((90_000 - intoMinute) % 60_000)
    const before = await attach()
    await until(allPlanned, { label: 'a leader has looked at all' })
    await before.stop()
    const from = await now()
    await pause(minutes * 60_000)
    await using _node = await attach()
    await until(allPlanned, { label: 'a leader has looked at all again' })
    const to = await now()
    const ticks = await database.query<{ schedule: string; fired: number; missed: number }>(
      `select schedule, count(*) filter (where outcome = 'fired')::int as fired,
              count(*) filter (where outcome = 'missed')::int as missed
       from forge.schedule_tick where planned_at between $1 and $2 group by schedule`,
      [from, to],
    )
    const jobs = await database.query<{ schedule: string; n: number }>(
      `select l.name as schedule, count(distinct j.id)::int as n
       from (select id, input, lane from forge.job union all select id, input, lane from forge.job_history) as j
       join forge.job_lane as l on l.id = j.lane
       where (input->>'scheduledFor')::timestamptz between $1 and $2 group by 1`,
      [from, to],
    )
    for (const [name, [, expected]] of Object.entries(policies)) {
      const schedule = `missed.${name}`
      expect(ticks.find((row) => row.schedule === schedule)).toEqual({
        schedule,
        fired: expected,
        missed: minutes - expected,
      })
      expect(jobs.find((row) => row.schedule === schedule)?.n ?? 0, schedule).toBe(expected)
    }
  },
)
