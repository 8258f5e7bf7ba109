import { expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

it('keeps ticks and events for thirty days, and ticks that wait for as long as they do', async () => {
  const bundle = setup(database)
  bundle.forge.cron('kept', { every: '1h' }, { run: () => {} })
  bundle.forge.cron('rare', '0 0 1 1 *', { run: () => {} })
  await (await bundle.attach()).stop()
  // More than one statement deletes.
  await database.query(
    `insert into forge.schedule_tick (schedule, planned_at, fired_at, outcome)
     select 'kept', now() - interval '30 d 1 s' - i * interval '1 s', now() - interval '30 d 1 s', 'fired'
       from generate_series(1, 5001) i
     union all select 'kept', now() - interval '40 d', now() - interval '40 d', 'waiting'
     union all select 'kept', now() - interval '35 d', now(), 'fired'
     union all select 'kept', now() - interval '29 d', now() - interval '29 d', 'missed'
     union all select 'rare', now() - i * interval '1 year', now() - i * interval '1 year', 'fired'
       from generate_series(1, 2) i`,
  )
  await database.query(
    `update forge.schedule set last_at = (select max(planned_at) from forge.schedule_tick where schedule = 'rare')
     where name = 'rare'`,
  )
  await database.query(
    `insert into forge.schedule_event (schedule, event, at)
     select 'kept', 'paused', now() - i * interval '1 d' from unnest(array[60, 31, 29, 1]) i`,
  )
  const next = setup(database)
  await using node = await next.attach({ roles: ['scheduler'] })
  const ticks = () =>
    database.query(
      `select outcome, extract(day from now() - planned_at)::int as days from forge.schedule_tick
       where schedule = 'kept' and planned_at < now() - interval '1 d' order by planned_at`,
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
  // The last tick of a schedule stays, however rare it is.
  expect(await node.crons.ticks('rare')).toHaveLength(1)
  expect((await node.crons.get('rare'))?.last).not.toBeNull()
})

it('forgets definitions that no living node has had for 90 days', async () => {
  const bundle = setup(database)
  bundle.forge.cron('used', '0 0 1 1 *', { run: () => {} })
  await using node = await bundle.attach({ roles: ['worker'] })
  await database.query(
    `update forge.schedule_version set used_at = now() - interval '91 d' where name = 'used'`,
  )
  await database.query(
    `insert into forge.schedule_version (name, hash, spec, used_at)
     select name, name, '{}', at from (values ('gone', now() - interval '91 d'), ('young', now() - interval '89 d')) as v (name, at)`,
  )
  const names = async () =>
    (
      await database.query<{ name: string }>(
        `select name from forge.schedule_version where name in ('used', 'gone', 'young') order by name`,
      )
    ).map(({ name }) => name)
  await until(async () => (await names()).length === 2, { label: 'forgotten' })
  expect(await names()).toEqual(['used', 'young'])
  // What living nodes have is used, however long they live.
  const [used] = await database.query<{ days: number }>(
    `select extract(day from now() - used_at)::int as days from forge.schedule_version where name = 'used'`,
  )
  expect(used?.days).toBe(0)
  expect((await node.crons.get('used'))?.state).toBe('active')
})
