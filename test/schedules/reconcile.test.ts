import { describe, expect, it, vi } from 'vitest'
import { DuplicateName, type ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const options = { lease: { ms: 1_200, renewMs: 300 } }
const yearly = '0 0 1 1 *'
const run = (): void => {}

/** A node of an app whose code has these schedules. */
async function version(
  rules: Readonly<Record<string, string>>,
): Promise<ForgeNode & { readonly heard: readonly string[] }> {
  const { forge, attach, heard } = setup(database)
  for (const [name, rule] of Object.entries(rules)) forge.cron(name, rule, { run })
  const node = await attach(options)
  return {
    ...node,
    heard: heard.map(({ message }) => message).filter((message) => message.startsWith('forge: schedule ')),
  }
}

const ruleOf = async (node: ForgeNode, name: string) => (await node.crons.get(name))?.rule
const eventsOf = async (node: ForgeNode, name: string) =>
  (await node.crons.events(name)).map(({ event }) => event).reverse()
/** As after a minute: nobody has defined it for so long. */
const aMinuteLater = (name: string) =>
  database.query(`update forge.schedule set orphaned_at = now() - interval '61 s' where name = $1`, [name])
const reconcile = () =>
  database.query<{ name: string; event: string; detail: string | null }>(
    'select * from forge.schedule_reconcile()',
  )

describe('a name that is defined twice', () => {
  it('is refused in production, also where a job has it, and replaced while one works on it', async () => {
    const { forge, attach } = setup(database)
    vi.stubEnv('NODE_ENV', 'production')
    forge.cron('twice', yearly, { run })
    forge.job('twice.job', { run })
    expect(() => forge.cron('twice', '@daily', { run })).toThrow(DuplicateName)
    expect(() => forge.cron('twice.job', '@daily', { run })).toThrow(DuplicateName)
    vi.stubEnv('NODE_ENV', 'development')
    forge.cron('twice', '0 0 1 2 *', { run })
    await using node = await attach(options)
    expect(await ruleOf(node, 'twice')).toBe('0 0 1 2 *')
    forge.cron('twice', '0 0 1 3 *', { run })
    await until(async () => (await ruleOf(node, 'twice')) === '0 0 1 3 *', { label: 'replaced' })
    vi.unstubAllEnvs()
  })
})

describe('what code defines', () => {
  it('is written down at the start, once, and says so', async () => {
    const first = await version({ 'start.a': '0 0 8 1 *' })
    expect(first.heard).toContain("forge: schedule 'start.a' is new")
    await first.stop()
    const second = await version({ 'start.a': '0 0 8 1 *' })
    expect(second.heard).toEqual([])
    expect(await eventsOf(second, 'start.a')).toEqual(['created'])
    await second.stop()
  })

  it('follows a new version, and does not flap while two run side by side', async () => {
    const old = await version({ roll: yearly })
    const young = await version({ roll: '0 0 2 1 *' })
    expect(young.heard).toContain("forge: schedule 'roll' has changed")
    expect(await ruleOf(old, 'roll')).toBe('0 0 2 1 *')
    // A node of the old version crashes and starts again in the middle of the deploy.
    await old.stop()
    const again = await version({ roll: yearly })
    expect(await ruleOf(again, 'roll')).toBe('0 0 2 1 *')
    await again.stop()
    expect(await eventsOf(young, 'roll')).toEqual(['created', 'changed'])
    await young.stop()
  })

  it('goes back when the new version is gone', async () => {
    const old = await version({ back: '0 0 9 1 *' })
    const young = await version({ back: '0 0 3 1 *' })
    await young.stop()
    // The leader hears of it.
    await until(async () => (await ruleOf(old, 'back')) === '0 0 9 1 *', { label: 'went back' })
    expect(await eventsOf(old, 'back')).toEqual(['created', 'changed', 'changed'])
    expect(await reconcile()).toEqual([])
    await old.stop()
  })

  it('is removed a minute after the last node that defines it, and comes back as it was', async () => {
    const other = await version({})
    const node = await version({ 'gone.a': '* * * * *' })
    await until(async () => (await node.crons.get('gone.a'))?.next, { label: 'planned' })
    await node.stop()
    expect(await reconcile()).toEqual([])
    expect(await other.crons.get('gone.a')).toMatchObject({ state: 'active' })
    await aMinuteLater('gone.a')
    expect(await reconcile()).toEqual([{ name: 'gone.a', event: 'removed', detail: null }])
    expect(await other.crons.get('gone.a')).toMatchObject({ state: 'removed', next: null })
    const [before] = await database.query<{ next_at: Date }>(
      `select next_at from forge.schedule where name = 'gone.a'`,
    )
    const back = await version({ 'gone.a': '* * * * *' })
    expect(back.heard).toContain("forge: schedule 'gone.a' is back")
    // What it missed meanwhile falls to its policy: it is looked for from where it stood.
    expect(await eventsOf(back, 'gone.a')).toEqual(['created', 'removed', 'returned'])
    expect(before?.next_at).toBeInstanceOf(Date)
    await back.stop()
    await other.stop()
  })

  it('is removed by the leader when its minute is over, though nothing else has changed', async () => {
    const leader = await version({ 'stays.b': '0 0 19 1 *' })
    const node = await version({ 'gone.b': '0 0 20 1 *' })
    await node.stop()
    const orphaned = () =>
      database.query(`select 1 from forge.schedule where name = 'gone.b' and orphaned_at is not null`)
    await until(async () => (await orphaned()).length === 1, { label: 'missed' })
    await aMinuteLater('gone.b')
    // A death makes the leader look at once.
    await database.query(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', 'gone', 1, '0', '{}', '{}', now() - interval '1 s')`,
    )
    await until(async () => (await leader.crons.get('gone.b'))?.state === 'removed', { label: 'removed' })
    expect(await eventsOf(leader, 'gone.b')).toEqual(['created', 'removed'])
    await leader.stop()
  })

  it('is found to be renamed', async () => {
    const old = await version({ 'name.old': '0 0 4 1 *' })
    await old.stop()
    const young = await version({ 'name.new': '0 0 4 1 *' })
    expect(young.heard).toContain(
      "forge: schedule 'name.new' follows 'name.old', which said the same and which no running code defines any more",
    )
    // Under both names it would fire twice.
    expect(await young.crons.get('name.old')).toMatchObject({ state: 'removed' })
    expect((await young.crons.events('name.new'))[0]).toMatchObject({
      event: 'renamed',
      reason: 'renamed from name.old',
    })
    await young.stop()
  })

  it('starts anew when it is renamed: no pause goes with it, and what waited under the old name is settled', async () => {
    const old = await version({ 'moved.old': '0 0 12 1 *' })
    await old.crons.pause('moved.old', { by: 'ann', reason: 'audit' })
    await old.stop()
    await database.query(`update forge.schedule set waiting = 1 where name = 'moved.old'`)
    await database.query(
      `insert into forge.schedule_tick (schedule, planned_at, outcome) values ('moved.old', now(), 'waiting')`,
    )
    const young = await version({ 'moved.new': '0 0 12 1 *' })
    expect(await eventsOf(young, 'moved.new')).toEqual(['created', 'renamed'])
    expect(await young.crons.get('moved.new')).toMatchObject({ state: 'active', paused: null })
    // That it is the same is a guess; after a minute it is taken for certain.
    expect(await young.crons.ticks('moved.old')).toMatchObject([{ outcome: 'waiting' }])
    await database.query(
      `update forge.schedule set removed_at = now() - interval '61 s' where name = 'moved.old'`,
    )
    await reconcile()
    expect(await young.crons.ticks('moved.old')).toMatchObject([{ outcome: 'skipped' }])
    await young.stop()
  })

  it('is not taken for renamed where two say the same, or what said it is gone for long', async () => {
    const old = await version({
      'alike.one': '0 0 13 1 *',
      'alike.two': '0 0 13 1 *',
      'once.old': '0 0 14 1 *',
    })
    await old.stop()
    await aMinuteLater('once.old')
    await reconcile()
    const young = await version({ 'alike.three': '0 0 13 1 *', 'once.new': '0 0 14 1 *' })
    expect(await eventsOf(young, 'alike.three')).toEqual(['created'])
    expect(await eventsOf(young, 'once.new')).toEqual(['created'])
    expect(await young.crons.get('alike.one')).not.toMatchObject({ state: 'removed' })
    await young.stop()
    const two = await version({ 'alike.four': '0 0 15 1 *' })
    await two.stop()
    const both = await version({ 'alike.five': '0 0 15 1 *', 'alike.six': '0 0 15 1 *' })
    expect(await eventsOf(both, 'alike.five')).toEqual(['created'])
    await both.stop()
  })

  it('is found to be renamed when the last node of the old version is gone, and goes on no longer', async () => {
    const old = await version({ 'shift.old': '0 0 16 1 *' })
    const young = await version({ 'shift.new': '0 0 16 1 *' })
    // While both are there nobody knows yet.
    expect(await eventsOf(young, 'shift.new')).toEqual(['created'])
    expect(await young.crons.get('shift.old')).toMatchObject({ state: 'active' })
    // The new version crashes in the middle of it and comes back.
    await young.stop()
    await reconcile()
    const again = await version({ 'shift.new': '0 0 16 1 *' })
    await old.stop()
    // The leader hears that it has gone; its poll would take a minute.
    await until(async () => (await again.crons.get('shift.old'))?.state === 'removed', { label: 'replaced' })
    expect((await again.crons.events('shift.old'))[0]).toMatchObject({
      event: 'renamed',
      reason: 'renamed to shift.new',
    })
    expect((await again.crons.events('shift.new'))[0]).toMatchObject({
      event: 'renamed',
      reason: 'renamed from shift.old',
    })
    await again.stop()
  })

  it('that is renamed in one go fires what came due in between, once', async () => {
    const planned = async (node: ForgeNode, name: string) =>
      (await node.crons.ticks(name)).map((tick) => tick.planned.getTime()).sort((a, b) => a - b)
    const old = await version({ 'gap.old': '* * * * * *' })
    await until(async () => (await planned(old, 'gap.old')).length > 0, { label: 'fires' })
    await old.stop()
    const [last] = await database.query<{ at: Date }>(
      `select max(planned_at) as at from forge.schedule_tick where schedule = 'gap.old'`,
    )
    const lastMs = last?.at.getTime() ?? 0
    await until(() => Date.now() > lastMs + 3_000, { label: 'ticks come due' })
    const young = await version({ 'gap.new': '* * * * * *' })
    await until(async () => (await planned(young, 'gap.new')).length >= 4, { label: 'fires on' })
    const ticks = await planned(young, 'gap.new')
    expect(ticks.slice(0, 4)).toEqual([1, 2, 3, 4].map((n) => lastMs + n * 1_000))
    expect(await eventsOf(young, 'gap.new')).toEqual(['created', 'renamed'])
    await young.stop()
  })

  it('that goes back to its old name goes on from then, and fires nothing that the new one has fired', async () => {
    const old = await version({ 'back.old': '*/3 * * * *' })
    await until(async () => (await old.crons.get('back.old'))?.next, { label: 'planned' })
    await old.stop()
    const young = await version({ 'back.new': '*/3 * * * *' })
    expect(await young.crons.get('back.old')).toMatchObject({ state: 'removed' })
    // An hour later.
    await database.query(
      `update forge.schedule set removed_at = now() - interval '1 h', next_at = date_trunc('minute', now()) - interval '1 h'
       where name = 'back.old'`,
    )
    const again = await version({ 'back.old': '*/3 * * * *' })
    expect(await eventsOf(again, 'back.old')).toEqual(['created', 'renamed', 'returned'])
    const [row] = await database.query<{ late: number }>(
      `select extract(epoch from now() - next_at)::int as late from forge.schedule where name = 'back.old'`,
    )
    expect(row?.late).toBeLessThan(60)
    await young.stop()
    await until(async () => (await again.crons.get('back.new'))?.state === 'removed', { label: 'gives way' })
    expect((await again.crons.events('back.new'))[0]).toMatchObject({ reason: 'renamed to back.old' })
    await again.stop()
  })

  it('that was only away for a moment goes on where it stood', async () => {
    const old = await version({ 'away.a': '*/4 * * * *' })
    await until(async () => (await old.crons.get('away.a'))?.next, { label: 'planned' })
    const other = await version({ 'away.b': '*/4 * * * *' })
    const stood = () =>
      database.query<{ next_at: Date }>(`select next_at from forge.schedule where name = 'away.a'`)
    await database.query(`update forge.schedule set paused_at = now() where name = 'away.a'`)
    const before = await stood()
    await old.stop()
    await until(async () => (await other.crons.get('away.a'))?.state === 'removed', { label: 'gives way' })
    const again = await version({ 'away.a': '*/4 * * * *' })
    expect(await stood()).toEqual(before)
    expect((await again.crons.get('away.a'))?.state).toBe('paused')
    await other.stop()
    await again.stop()
  })

  it('is not renamed by a new one that stands beside it in the same code', async () => {
    const old = await version({ 'beside.a': '0 0 17 1 *' })
    const both = await version({ 'beside.a': '0 0 17 1 *', 'beside.b': '0 0 17 1 *' })
    await old.stop()
    const one = await version({ 'beside.b': '0 0 17 1 *' })
    await both.stop()
    await reconcile()
    // It goes on for its minute.
    expect(await one.crons.get('beside.a')).toMatchObject({ state: 'active' })
    expect(await eventsOf(one, 'beside.b')).toEqual(['created'])
    await one.stop()
  })

  it('does not replace what was made at run time', async () => {
    const { forge, attach } = setup(database)
    forge.job('taken.job', { run })
    await using node = await attach(options)
    await node.crons.create('taken', '0 0 5 1 *', { job: 'taken.job' })
    const other = await version({ taken: '0 0 6 1 *' })
    expect(other.heard.some((message) => message.includes("'taken' stands as it was made at run time"))).toBe(
      true,
    )
    expect(await ruleOf(node, 'taken')).toBe('0 0 5 1 *')
    await node.crons.delete('taken')
    await reconcile()
    expect(await ruleOf(node, 'taken')).toBe('0 0 6 1 *')
    await other.stop()
  })

  it('stays paused through a deploy', async () => {
    const old = await version({ still: '0 0 10 1 *' })
    await old.crons.pause('still', { by: 'ann', reason: 'audit' })
    const young = await version({ still: '0 0 7 1 *' })
    expect(await young.crons.get('still')).toMatchObject({
      state: 'paused',
      rule: '0 0 7 1 *',
      paused: { by: 'ann', reason: 'audit' },
    })
    await old.stop()
    await young.stop()
  })

  it('that is added after attach is written down as well', async () => {
    const { forge, attach } = setup(database)
    await using node = await attach(options)
    forge.cron('late', yearly, { run })
    await until(() => node.crons.get('late'), { label: 'written down' })
  })

  it('is offered again after the row of the node was deleted', async () => {
    const node = await version({ reborn: '0 0 11 1 *' })
    await database.query(`delete from forge.node where id = $1`, [node.id])
    await database.query(`delete from forge.schedule_offer where node = $1`, [node.id])
    await until(
      async () =>
        (await database.query(`select 1 from forge.schedule_offer where node = $1`, [node.id])).length === 1,
      { label: 'offered again' },
    )
    await node.stop()
  })

  it('is brought in order by the leader when nodes have gone', async () => {
    const other = await version({})
    const node = await version({ 'leader.sees': '0 0 12 1 *' })
    await node.stop()
    // The next leader looks at once.
    await other.stop()
    const third = await version({})
    await until(
      async () =>
        (
          await database.query(
            `select 1 from forge.schedule where name = 'leader.sees' and orphaned_at is not null`,
          )
        ).length === 1,
      { label: 'seen' },
    )
    await third.stop()
  })
})
