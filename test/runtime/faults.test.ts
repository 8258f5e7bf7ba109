import { describe, expect, it } from 'vitest'
import { Rescue } from '../../src/jobs/rescue.js'
import { optionTable } from '../../src/options.js'
import { createRuntime, Faults } from '../../src/runtime/index.js'
import { ForgeError, resolveOptions } from '../../src/kernel/index.js'
import { manualClock } from '../kernel/manual-clock.js'
import { useDatabase } from '../support/database.js'
import { listeningLogger, setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

function watched() {
  const { clock, advance } = manualClock()
  const { logger, heard } = listeningLogger()
  const faults = new Faults(clock, logger)
  const fail = (what = 'it'): Promise<unknown> =>
    faults.attempt(what, () => Promise.reject(Object.assign(new Error('no'), { code: '42P01' })))
  return { faults, advance, fail, heard, levels: () => heard.map(({ level }) => level) }
}

describe('what is tried again by itself', () => {
  it('gives its result, and undefined when it failed', async () => {
    const { faults, fail, heard } = watched()
    expect(await faults.attempt('it', () => Promise.resolve(7))).toBe(7)
    expect(await fail()).toBeUndefined()
    expect(heard).toMatchObject([{ level: 'debug', message: 'forge: it failed and is tried again: no' }])
  })

  it('is a warning from the second failure on end, and once an hour', async () => {
    const { faults, advance, fail, levels, heard } = watched()
    await fail()
    faults.passed('it')
    await fail()
    expect(levels()).toEqual(['debug', 'debug'])
    await fail()
    expect(heard[2]).toMatchObject({ level: 'warn', fields: { code: '42P01' } })
    advance(3_599_000)
    await fail()
    // Another one is another one.
    await fail('other')
    await fail('other')
    expect(levels().slice(3)).toEqual(['debug', 'debug', 'warn'])
    advance(1_000)
    await fail()
    expect(levels().at(-1)).toBe('warn')
    faults.passed('it')
    await fail()
    await fail()
    expect(levels().slice(-2)).toEqual(['debug', 'debug'])
  })

  it.each(['ECONNREFUSED', '53300', 'FORGE_COMMIT_UNKNOWN'])(
    'is said after five minutes where it cannot connect (%s): the lease says the rest',
    (code) => {
      const { faults, advance, levels } = watched()
      const fail = (): void => {
        const error = new Error('no')
        faults.failed(
          'it',
          code.startsWith('FORGE')
            ? new ForgeError(code as 'FORGE_COMMIT_UNKNOWN')
            : Object.assign(error, { code }),
        )
      }
      fail()
      advance(299_000)
      fail()
      expect(levels()).toEqual(['debug', 'debug'])
      advance(1_000)
      fail()
      fail()
      expect(levels().slice(2)).toEqual(['warn', 'debug'])
    },
  )
})

it('says that jobs of lost nodes are not taken back, however often the sweep around it passes', async () => {
  const { logger, heard } = listeningLogger()
  const { runtime, close } = createRuntime(database.pool(), resolveOptions(optionTable, { logger }, {}))
  await database.query('alter table forge.job_claim rename to job_claim_gone')
  const rescue = new Rescue(runtime, { completedMs: 1, discardedMs: 1 }, () => [])
  for (let n = 0; n < 2; n++) await runtime.faults.attempt(`the chore 'rescue'`, () => rescue.sweep())
  await database.query('alter table forge.job_claim_gone rename to job_claim')
  const warned = heard.filter(({ level }) => level === 'warn').map(({ message }) => message)
  expect(warned).toContainEqual(expect.stringContaining('taking back the jobs of lost nodes failed'))
  await close()
})

it('a node says once what it cannot do, and goes on when it can', async () => {
  const bundle = setup(database)
  const { forge, heard } = bundle
  const ran: string[] = []
  const job = forge.job('work', { run: () => void ran.push('job') })
  forge.cron('second', { every: '1s' }, { run: () => void ran.push('tick') })
  await using _node = await bundle.attach({ lease: { ms: 1_200, renewMs: 300 } })
  await until(() => ran.includes('tick'), { label: 'a tick' })
  const said = (what: string): number =>
    heard.filter(({ level, message }) => level === 'warn' && message.includes(`forge: ${what} failed`)).length

  await database.query('alter table forge.schedule rename to schedule_away')
  await until(() => said('the round of schedules') > 0, { label: 'the leader says it' })
  forge.cron('later', { every: '1s' }, { run: () => void ran.push('later') })
  await until(() => said('the writing of schedules that code defines') > 0, { label: 'and who defines' })
  await database.query('alter table forge.schedule_away rename to schedule')
  await until(() => ran.includes('later'), { label: 'it fires', deadlineMs: 20_000 })
  expect(said('the round of schedules')).toBe(1)

  await database.query('alter table forge.job_claim rename to job_claim_away')
  const { id } = await job.enqueue({})
  await until(() => said('the claim of jobs') > 0, { label: 'the worker says it' })
  await database.query('alter table forge.job_claim_away rename to job_claim')
  await until(() => ran.includes('job'), { label: 'it runs', deadlineMs: 20_000 })
  expect(id).toBeTypeOf('string')
  expect(said('the claim of jobs')).toBe(1)
})
