import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ForgeNode } from '../../src/index.js'
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
  forge.job('work', { run })
  forge.job('lone', { unique: { by: (input: { id: string }) => input.id }, run })
  forge.job('late', { unique: { onConflict: 'debounce', for: '1m', by: (id: string) => id }, run })
  forge.cron('code', yearly, { input: { n: 1 }, run: ({ input }) => void ran.push(input) })
  node = await bundle.attach({ lease: { ms: 1_200, renewMs: 300 } })
})
afterAll(() => node.stop())
afterEach(() => vi.useRealTimers())

/** The clock of this process, and of nothing else, is off by so much. */
function clockOff(ms: number): void {
  vi.useFakeTimers({ toFake: ['Date'] })
  vi.setSystemTime(Date.now() + ms)
}

const tickOf = async (name: string, at: Date) =>
  (await node.crons.ticks(name)).find(({ planned }) => planned.getTime() === at.getTime())

describe('trigger', () => {
  it('fires a tick now, and as of a time that has passed', async () => {
    ran = []
    const now = await node.crons.trigger('code', { by: 'ann', reason: 'try it' })
    expect(now).toMatchObject({ created: true, outcome: 'fired' })
    await until(() => ran.length === 1, { label: 'ran' })
    const at = new Date('2026-01-01T03:00:00Z')
    const past = await node.crons.trigger('code', { at })
    expect(past).toMatchObject({ created: true, planned: at })
    // Once: that tick stands.
    expect(await node.crons.trigger('code', { at: at.toISOString() })).toEqual({ ...past, created: false })
    await until(() => ran.length === 2, { label: 'ran again' })
    expect((await node.crons.ticks('code')).map(({ by, reason }) => [by, reason])).toEqual([
      ['ann', 'try it'],
      [null, null],
    ])
    expect((await node.crons.events('code'))[1]).toMatchObject({
      event: 'triggered',
      by: 'ann',
      reason: 'try it',
    })
  })

  it('keeps to overlap', async () => {
    bundle.forge.cron('alone', yearly, {
      overlap: 'skip',
      run: (_tick, { signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)),
    })
    const known = `select 1 from forge.job_definition where name = 'alone'`
    await until(async () => (await node.crons.get('alone')) && (await database.query(known)).length === 1, {
      label: 'written down, and its job too',
    })
    const first = await node.crons.trigger('alone')
    expect(await node.crons.trigger('alone')).toMatchObject({ created: false, outcome: 'skipped', job: null })
    await node.jobs.cancel(first.job as string)
  })

  it('is refused for an unknown and a paused schedule, and for the future', async () => {
    const { crons } = node
    await expect(crons.trigger('nowhere')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_UNKNOWN' })
    await crons.pause('code')
    await expect(crons.trigger('code')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_PAUSED' })
    await crons.resume('code')
    await expect(crons.trigger('code', { at: '2100-01-01T00:00:00Z' })).rejects.toMatchObject({
      code: 'FORGE_OPTION_INVALID',
    })
    await expect(crons.trigger('code', { when: 1 } as never)).rejects.toMatchObject({
      code: 'FORGE_OPTION_UNKNOWN',
    })
  })

  it.each(['missed', 'skipped'] as const)('as of a tick that was %s fires it after all', async (outcome) => {
    const at = new Date(outcome === 'missed' ? '2026-02-01T03:00:00Z' : '2026-02-02T03:00:00Z')
    await database.query(
      `insert into forge.schedule_tick (schedule, planned_at, outcome) values ('code', $1, $2)`,
      [at, outcome],
    )
    const found = await node.crons.trigger('code', { at, by: 'ann', reason: 'needed after all' })
    expect(found).toMatchObject({ created: true, outcome: 'fired', planned: at })
    expect(await tickOf('code', at)).toMatchObject({
      outcome: 'fired',
      job: found.job,
      by: 'ann',
      reason: 'needed after all',
    })
    expect(await node.crons.trigger('code', { at })).toEqual({ ...found, created: false })
  })

  it('says that it made no job where a unique one stands', async () => {
    await node.crons.create('lone.1', yearly, { job: 'lone', key: 'k', input: { id: 'k' }, overlap: 'allow' })
    const [queue] = await database.query<{ queue: string }>(
      `select queue from forge.job_definition where name = 'lone'`,
    )
    await node.queues.pause(queue?.queue ?? '')
    const first = await node.crons.trigger('lone.1')
    expect(first).toMatchObject({ created: true, outcome: 'fired' })
    const second = await node.crons.trigger('lone.1')
    expect(second).toMatchObject({ created: false, outcome: 'skipped', job: first.job })
    expect(await tickOf('lone.1', second.planned)).toMatchObject({ outcome: 'skipped', job: first.job })
    // The same for those that come by themselves.
    await node.crons.update('lone.1', { every: '1s' }, { job: 'lone', key: 'k', input: { id: 'k' } })
    await until(async () => (await node.crons.ticks('lone.1')).length >= 3, { label: 'a tick' })
    const [last] = await node.crons.ticks('lone.1')
    expect(last).toMatchObject({ outcome: 'skipped', job: first.job })
    await node.crons.delete('lone.1')
    await node.queues.resume(queue?.queue ?? '')
  })

  it('of a job that puts off the one that stands counts as fired', async () => {
    await node.crons.create('late.1', yearly, { job: 'late', key: 'k', input: 'k' })
    const first = await node.crons.trigger('late.1')
    expect(await node.crons.trigger('late.1')).toMatchObject({
      created: true,
      outcome: 'fired',
      job: first.job,
    })
  })

  it('refuses with a code of forge what SQL cannot make', async () => {
    await node.crons.create('lost', yearly, { job: 'work' })
    const say = (change: string) =>
      database.query(`update forge.schedule set spec = spec || $1::jsonb where name = 'lost'`, [change])
    await say('{"job": "nobody.has.it"}')
    await expect(node.crons.trigger('lost')).rejects.toMatchObject({ code: 'FORGE_SCHEDULE_JOB_UNKNOWN' })
    await say('{"job": "work", "key": "takes none"}')
    await expect(node.crons.trigger('lost')).rejects.toMatchObject({
      code: 'FORGE_OPTION_INVALID',
      message: expect.stringContaining("'work' takes no key") as string,
    })
    expect(await node.crons.ticks('lost')).toEqual([])
  })

  it('goes by the clock of the database, whatever that of the caller says', async () => {
    const now = new Date()
    clockOff(120_000)
    // "Now", by a clock that is ahead: not the place of a tick that is still to come.
    const { planned, created } = await node.crons.trigger('code', { at: new Date() })
    expect(created).toBe(true)
    expect(planned.getTime()).toBeLessThan(now.getTime() + 60_000)
    clockOff(-3_600_000)
    await expect(node.crons.trigger('code', { at: new Date(now.getTime() - 2_000) })).resolves.toMatchObject({
      created: true,
    })
    await expect(node.crons.trigger('code', { at: new Date(now.getTime() + 400_000) })).rejects.toMatchObject(
      {
        code: 'FORGE_OPTION_INVALID',
        message: expect.stringContaining('lies in the future') as string,
      },
    )
  })
})

describe('a date', () => {
  it('is judged by the clock of the database', async () => {
    const soon = new Date(Date.now() + 60_000)
    const past = new Date(Date.now() - 60_000)
    clockOff(3_600_000)
    await node.crons.create('soon', { at: soon }, { job: 'work' })
    expect(await node.crons.preview('soon')).toEqual([soon])
    clockOff(-7_200_000)
    await expect(node.crons.create('past', { at: past }, { job: 'work' })).rejects.toMatchObject({
      code: 'FORGE_SCHEDULE_NEVER',
    })
    await node.crons.create('hourly', { every: '1h' }, { job: 'work' })
    await node.crons.pause('hourly')
    const [next] = await node.crons.preview('hourly', 1)
    expect(next?.getTime()).toBeGreaterThan(past.getTime())
  })
})
