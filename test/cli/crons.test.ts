import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { call } from './command.js'

const database = useDatabase()
let node: ForgeNode
let ran = 0

beforeAll(async () => {
  const { forge, attach } = setup(database)
  forge.cron('report', '0 3 1 1 *', { timezone: 'Europe/Berlin', run: () => void (ran += 1) })
  forge.cron('every', { every: '12h' }, { run: () => {} })
  node = await attach({ lease: { ms: 1_200, renewMs: 300 } })
  await until(async () => (await node.crons.list()).every(({ next }) => next !== null), { label: 'planned' })
})
afterAll(() => node.stop())

const crons = (...args: string[]) => call(['crons', ...args, '--database-url', database.url])

async function json(...args: string[]): Promise<Record<string, unknown>> {
  const { stdout, stderr } = await crons(...args, '--json')
  expect(stderr).toBe('')
  return JSON.parse(stdout) as Record<string, unknown>
}

describe('forge crons', () => {
  it('lists schedules with their next and last', async () => {
    const { code, stdout } = await crons('list')
    expect(code).toBe(0)
    const lines = stdout.trimEnd().split('\n')
    expect(lines[0]).toMatch(/^schedule +state +rule +timezone +next +last$/)
    expect(lines[1]).toMatch(/^every +active +every 43200 s +UTC +20\d\d-\S+Z$/)
    expect(lines[2]).toMatch(/^report +active +0 3 1 1 \* +Europe\/Berlin +20\d\d-01-01T02:00:00.000Z$/)
    const { schedules } = (await json('list', '--limit', '1', '--after', 'every')) as {
      schedules: { name: string }[]
    }
    expect(schedules.map(({ name }) => name)).toEqual(['report'])
  })

  it('previews', async () => {
    const { code, stdout } = await crons('preview', 'report', '--limit', '2')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^20\d\d-01-01T02:00:00.000Z\n20\d\d-01-01T02:00:00.000Z\n$/)
  })

  it('triggers, at once and as of a time, and a node runs it', async () => {
    const { code, stdout } = await crons('trigger', 'report', '--by', 'ann', '--reason', 'numbers')
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^report fired: job [0-9a-f-]{36}\n$/)])
    // By the hint of the command: the poll would take longer.
    await until(() => ran === 1, { label: 'ran', deadlineMs: 4_000 })
    expect((await node.crons.events('report'))[0]).toMatchObject({
      event: 'triggered',
      by: 'ann',
      reason: 'numbers',
    })
    const at = '2026-01-01T02:00:00Z'
    expect(await json('trigger', 'report', '--at', at)).toMatchObject({
      ok: true,
      created: true,
      outcome: 'fired',
    })
    const again = await crons('trigger', 'report', '--at', at)
    expect([again.code, again.stdout]).toEqual([1, 'report made no job: that tick has fired already\n'])
    const wrong = await crons('trigger', 'report', '--at', 'tomorrow')
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('with an offset')])
  })

  it('pauses and resumes, and says who and why', async () => {
    expect((await crons('pause', 'report', '--reason', 'audit')).stdout).toBe(
      'report fires nothing until it is resumed\n',
    )
    expect(await node.crons.get('report')).toMatchObject({ state: 'paused', paused: { reason: 'audit' } })
    const refused = await crons('trigger', 'report')
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('FORGE_SCHEDULE_PAUSED')])
    expect((await crons('resume', 'report')).code).toBe(0)
    expect(await node.crons.get('report')).toMatchObject({ state: 'active' })
  })

  it.each([
    ['nowhere', 1, 'FORGE_SCHEDULE_UNKNOWN'],
    ['"; drop --', 2, 'FORGE_OPTION_INVALID'],
  ])('refuses %j', async (name, code, part) => {
    for (const verb of ['preview', 'trigger', 'pause', 'resume']) {
      const ended = await crons(verb, name)
      expect([verb, ended.code, ended.stdout]).toEqual([verb, code, ''])
      expect(ended.stderr).toContain(part)
    }
  })
})
