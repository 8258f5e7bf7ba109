import { expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

it('keeps ticks and events for thirty days, and ticks that wait for as long as they do', async () => {
  const bundle = setup(database)
  bundle.forge.cron('kept', { every: '1h' }, { run: () => {} })
  await (await bundle.attach()).stop()
  // More than one statement deletes.
  await database.query(
    `insert into forge.schedule_tick (schedule, planned_at, fired_at, outcome)
     select 'kept', now() - interval '30 d 1 s' - i * interval '1 s', now() - interval '30 d 1 s', 'fired'
       from generate_series(1, 5001) i
     union all select 'kept', now() - interval '40 d', now() - interval '40 d', 'waiting'
     union all select 'kept', now() - interval '35 d', now(), 'fired'
     union all select 'kept', now() - interval '29 d', now() - interval '29 d', 'missed'`,
  )
  await database.query(
    `insert into forge.schedule_event (schedule, event, at)
     select 'kept', 'paused', now() - i * interval '1 d' from unnest(array[60, 31, 29, 1]) i`,
  )
  const next = setup(database)
  await using _node = await next.attach({ roles: ['scheduler'] })
  const ticks = () =>
    database.query(
      `select outcome, extract(day from now() - planned_at)::int as days from forge.schedule_tick
       where planned_at < now() - interval '1 d' order by planned_at`,
    )
  await until(async () => (await ticks()).length <= 3, { label: 'what is over is gone' })
  expect(await ticks()).toEqual([
    { outcome: 'waiting', days: 40 },
    // Asked for afterwards: asked again, it still stands.
    { outcome: 'fired', days: 35 },
    { outcome: 'missed', days: 29 },
  ])
  const events = await database.query(
    `select extract(day from now() - at)::int as days from forge.schedule_event where event = 'paused' order by id`,
  )
  expect(events).toEqual([{ days: 29 }, { days: 1 }])
})
