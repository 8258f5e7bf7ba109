import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import type { ForgeNode, ScheduleRule } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { type Bundle, setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const yearly = '0 0 1 1 *'
const run = (): void => {}
let bundle: Bundle
let node: ForgeNode
let ran: unknown[] = []

beforeAll(async () => {
  bundle = setup(database)
  const { forge } = bundle
  forge.job('work', { input: z.object({ n: z.number() }).nullable(), run: (input) => void ran.push(input) })
  forge.job('keyed', { unique: { by: (input: { id: string }) => input.id }, run })
  forge.job('debounced', { unique: { onConflict: 'debounce', for: '1m' }, run })
  forge.cron('code', yearly, {
    timezone: 'Europe/Berlin',
    input: { n: 1 },
    run: ({ input }) => void ran.push(input),
  })
  node = await bundle.attach({ lease: { ms: 1_200, renewMs: 300 } })
})
afterAll(() => node.stop())

describe('a schedule that is made at run time', () => {
  it('fires, is changed, and is deleted; each says who and why', async () => {
    const who = { by: 'ann', reason: 'ticket 7' }
    await node.crons.create('tenant.1', { every: '1s' }, { job: 'work', input: { n: 5 }, ...who })
    await until(() => ran.some((input) => (input as { n: number }).n === 5), { label: 'fires' })
    await node.crons.update('tenant.1', yearly, { job: 'work', timezone: 'Asia/Tokyo', ...who, by: 'bob' })
    const [next] = await node.crons.preview('tenant.1', 1)
    expect(next?.toISOString()).toMatch(/-12-31T15:00:00\.000Z$/)
    expect(await node.crons.get('tenant.1')).toMatchObject({
      origin: 'runtime',
      rule: yearly,
      timezone: 'Asia/Tokyo',
    })
    await node.crons.delete('tenant.1', who)
    expect(await node.crons.get('tenant.1')).toBeNull()
    expect((await node.crons.events('tenant.1')).map(({ event, by, reason }) => [event, by, reason])).toEqual(
      [
        ['deleted', 'ann', 'ticket 7'],
        ['changed', 'bob', 'ticket 7'],
        ['created', 'ann', 'ticket 7'],
      ],
    )
  })

  it('survives its makers', async () => {
    await node.crons.create('survivor', { every: '1s' }, { job: 'work', input: { n: 6 } })
    await node.stop()
    const next = setup(database)
    next.forge.job('work', { run: (input: unknown) => void ran.push(input) })
    ran = []
    await using other = await next.attach({ lease: { ms: 1_200, renewMs: 300 } })
    await until(() => ran.length > 0, { label: 'fires' })
    await other.crons.delete('survivor')
    node = await bundle.attach({ lease: { ms: 1_200, renewMs: 300 } })
  })

  it('takes along the ticks that wait when it is deleted', async () => {
    await node.crons.create('left', yearly, { job: 'work', overlap: 'queue' })
    await database.query(
      `insert into forge.schedule_tick (schedule, planned_at, outcome) values ('left', now() - interval '1 h', 'waiting')`,
    )
    await node.crons.delete('left')
    expect((await node.crons.ticks('left')).map(({ outcome }) => outcome)).toEqual(['skipped'])
  })

  it.each<[string, ScheduleRule, Record<string, unknown>, string, string]>([
    ['code', yearly, { job: 'work' }, 'FORGE_SCHEDULE_EXISTS', "'code'"],
    ['bad', '0 25 * * *', { job: 'work' }, 'FORGE_CRON_INVALID', 'position 3 (hour)'],
    ['bad', yearly, { job: 'work', timezone: 'Mars/Olympus' }, 'FORGE_TIMEZONE_UNKNOWN', 'Mars/Olympus'],
    ['bad', yearly, { job: 'work', timezone: '+02:00' }, 'FORGE_TIMEZONE_UNKNOWN', '+02:00'],
    ['bad', { every: '0s' }, { job: 'work' }, 'FORGE_OPTION_INVALID', 'at least 1 s'],
    ['bad', yearly, { job: 'a\0b' }, 'FORGE_OPTION_INVALID', 'job of schedule'],
    ['bad', yearly, { job: 'half \ud800' }, 'FORGE_OPTION_INVALID', 'job of schedule'],
    ['bad', yearly, { job: 'work', key: 'half \ud800' }, 'FORGE_OPTION_INVALID', 'key'],
    ['bad', yearly, { job: 'work', queue: 'not a queue!' }, 'FORGE_JOB_NAME_INVALID', 'queue'],
    ['bad', { every: 'soon' as '1s' }, { job: 'work' }, 'FORGE_DURATION_INVALID', 'soon'],
    ['bad', { at: '2020-01-01T00:00:00Z' }, { job: 'work' }, 'FORGE_SCHEDULE_NEVER', 'at 2020-01-01'],
    ['bad', { at: '2030-01-01 00:00' }, { job: 'work' }, 'FORGE_OPTION_INVALID', 'with an offset'],
    [
      'bad',
      { at: '2030-01-01T00:00:00Z', every: '1s' } as never,
      { job: 'work' },
      'FORGE_OPTION_INVALID',
      'a cron expression, { every } or { at }',
    ],
    ['bad', yearly, { job: 'work', end: '2020-01-01T00:00:00Z' }, 'FORGE_SCHEDULE_NEVER', yearly],
    [
      'bad',
      yearly,
      { job: 'work', start: '2031-01-01T00:00:00Z', end: '2030-01-01T00:00:00Z' },
      'FORGE_OPTION_INVALID',
      'before its start',
    ],
    ['bad', yearly, { job: 'nobody' }, 'FORGE_SCHEDULE_JOB_UNKNOWN', "'nobody'"],
    ['bad', yearly, {}, 'FORGE_OPTION_INVALID', 'a job definition or its name'],
    ['bad', yearly, { job: 'work', run }, 'FORGE_OPTION_INVALID', 'is for forge.cron'],
    ['bad', yearly, { job: 'work', input: { n: 'x' } }, 'FORGE_INPUT_INVALID', "The input of 'work'"],
    ['bad', yearly, { job: 'work', input: { f: () => 1 } }, 'FORGE_INPUT_NOT_JSON', 'f'],
    ['bad', yearly, { job: 'work', key: 'k' }, 'FORGE_OPTION_INVALID', 'unique, concurrency or rate'],
    ['bad', yearly, { job: 'keyed' }, 'FORGE_OPTION_INVALID', 'computes one from its input'],
    ['bad', yearly, { job: 'debounced', jitter: '1s' }, 'FORGE_OPTION_INVALID', 'debounced'],
    ['bad', yearly, { job: 'work', misssed: 'all' }, 'FORGE_OPTION_UNKNOWN', 'missed'],
    ['bad', yearly, { job: 'work', missed: 'some' }, 'FORGE_OPTION_INVALID', "'none', 'last', 'all'"],
    [
      'bad',
      yearly,
      { job: 'work', missed: { policy: 'all', limit: 0 } },
      'FORGE_OPTION_INVALID',
      'from 1 to 1000',
    ],
    ['bad', yearly, { job: 'work', overlap: 'maybe' }, 'FORGE_OPTION_INVALID', "'allow', 'skip', 'queue'"],
    ['bad', yearly, { job: 'work', priority: 101 }, 'FORGE_OPTION_INVALID', 'from 0 to 100'],
    ['"; drop --', yearly, { job: 'work' }, 'FORGE_OPTION_INVALID', 'The name of a schedule'],
    ['x'.repeat(95), yearly, { job: 'work' }, 'FORGE_OPTION_INVALID', '1 to 94'],
    ['bad', yearly, { job: 'work', by: 'x'.repeat(1_001) }, 'FORGE_OPTION_INVALID', 'at most 1000 bytes'],
  ])('is refused: %s, %j, %j', async (name, rule, options, code, part) => {
    const refused = await node.crons.create(name, rule, options as never).catch((error: unknown) => error)
    expect(refused).toMatchObject({ code, message: expect.stringContaining(part) as string })
    expect(await node.crons.get('bad')).toBeNull()
  })

  it('takes along a tick that comes to wait while it is deleted', async () => {
    await node.crons.create('race', yearly, { job: 'work', overlap: 'queue' })
    const firing = await database.pool().connect()
    await firing.query('begin')
    await firing.query(`select from forge.schedule where name = 'race' for no key update`)
    const deleted = node.crons.delete('race')
    const blocked = () =>
      database.query(
        `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%schedule_delete%'`,
      )
    await until(async () => (await blocked()).length === 1, { label: 'the deletion waits' })
    await firing.query(
      `insert into forge.schedule_tick (schedule, planned_at, outcome) values ('race', now(), 'waiting')`,
    )
    await firing.query('commit')
    firing.release()
    await deleted
    expect(await node.crons.ticks('race')).toMatchObject([{ outcome: 'skipped' }])
  })

  it('cannot be changed or deleted when it is not there, or when code defines it', async () => {
    const { crons } = node
    await expect(crons.update('nowhere', yearly, { job: 'work' })).rejects.toMatchObject({
      code: 'FORGE_SCHEDULE_UNKNOWN',
    })
    await expect(crons.delete('nowhere')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_UNKNOWN' })
    await expect(crons.update('code', yearly, { job: 'work' })).rejects.toMatchObject({
      code: 'FORGE_SCHEDULE_IN_CODE',
    })
    await expect(crons.delete('code')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_IN_CODE' })
  })

  it('takes a key for a job that needs one', async () => {
    await node.crons.create('keyed.1', yearly, { job: 'keyed', key: 'k1' })
    expect((await node.crons.trigger('keyed.1')).created).toBe(true)
    await node.crons.delete('keyed.1')
  })
})

describe('pause and resume', () => {
  it('keep it from firing, and go on with the next tick from then', async () => {
    let count = 0
    bundle.forge.cron('stops', { every: '1s' }, { missed: 'all', run: () => void (count += 1) })
    await until(() => count >= 1, { label: 'fires' })
    await node.crons.pause('stops', { by: 'ann', reason: 'noise' })
    expect(await node.crons.get('stops')).toMatchObject({
      state: 'paused',
      next: null,
      paused: { by: 'ann', reason: 'noise' },
    })
    expect(await node.crons.preview('stops', 3)).toHaveLength(3)
    // As if it had been paused for an hour.
    await database.query(`update forge.schedule set next_at = next_at - interval '1 h' where name = 'stops'`)
    const ticks = (await node.crons.ticks('stops', { limit: 1_000 })).length
    const resumedAt = Date.now()
    await node.crons.resume('stops', { by: 'bob' })
    await until(async () => (await node.crons.ticks('stops', { limit: 1_000 })).length > ticks, {
      label: 'fires again',
    })
    await node.crons.pause('stops')
    const planned = (await node.crons.ticks('stops', { limit: 1_000 }))
      .slice(0, -ticks)
      .map((tick) => tick.planned.getTime())
    expect(Math.min(...planned)).toBeGreaterThan(resumedAt - 1_000)
    expect((await node.crons.events('stops')).map(({ event, by }) => [event, by]).reverse()).toEqual([
      ['created', null],
      ['paused', 'ann'],
      ['resumed', 'bob'],
      ['paused', null],
    ])
  })

  it('leave out a single date that has passed meanwhile', async () => {
    await node.crons.create(
      'appointment',
      { at: new Date(Date.now() + 400) },
      { job: 'work', missed: 'last' },
    )
    await node.crons.pause('appointment')
    const due = Date.now() + 700
    await until(() => Date.now() > due, { label: 'its time has passed' })
    await node.crons.resume('appointment')
    expect(await node.crons.get('appointment')).toMatchObject({ state: 'finished', last: null })
    expect(await node.crons.preview('appointment', 1)).toEqual([])
    await node.crons.delete('appointment')
  })

  it('are refused for what is not there', async () => {
    await expect(node.crons.pause('nowhere')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_UNKNOWN' })
    await expect(node.crons.resume('nowhere')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_UNKNOWN' })
    await expect(node.crons.pause('"; drop --')).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
    await expect(node.crons.events('"; drop --')).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
    await expect(node.crons.list({ after: '\0' })).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
  })
})

describe('looking', () => {
  it('lists in the order of names, page by page', async () => {
    const all = await node.crons.list()
    expect(all.map(({ name }) => name)).toEqual(['code', 'stops'])
    const [first] = await node.crons.list({ limit: 1 })
    expect((await node.crons.list({ limit: 1, after: first?.name ?? '' })).map(({ name }) => name)).toEqual([
      'stops',
    ])
    await expect(node.crons.list({ limit: 0 })).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
  })

  it('previews in the zone of the schedule', async () => {
    const dates = await node.crons.preview('code', 2)
    expect(dates.map((date) => date.toISOString().slice(4))).toEqual([
      '-12-31T23:00:00.000Z',
      '-12-31T23:00:00.000Z',
    ])
    await expect(node.crons.preview('nowhere')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_UNKNOWN' })
    await expect(node.crons.preview('code', 1_001)).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
  })
})
