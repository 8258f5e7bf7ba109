import { describe, expect, it } from 'vitest'
import { readArguments } from '../../src/cli/arguments.js'

const url = 'postgres://app@127.0.0.1/shop'
const read = (args: readonly string[], env: Record<string, string> = { DATABASE_URL: url }) =>
  readArguments(args, env)

describe('the arguments of the command', () => {
  it('name a command, in any place among the options', () => {
    expect(read(['status'])).toEqual({ kind: 'status', databaseUrl: url, schema: undefined })
    expect(read(['--json', 'doctor', '--schema', 'jobs'])).toMatchObject({ kind: 'doctor', schema: 'jobs' })
    expect(read(['--schema=jobs', 'migrate'])).toMatchObject({ kind: 'migrate', sql: false, schema: 'jobs' })
    expect(read(['migrate', '--sql'])).toMatchObject({ kind: 'migrate', sql: true })
  })

  it('count before the environment', () => {
    const env = { DATABASE_URL: url, FORGE_SCHEMA: 'env' }
    expect(read(['status'], env)).toMatchObject({ databaseUrl: url, schema: 'env' })
    expect(read(['status', '--schema', 'own', '--database-url', 'postgres://b/c'], env)).toMatchObject({
      databaseUrl: 'postgres://b/c',
      schema: 'own',
    })
    expect(read(['status'], env)).toMatchObject({ schemaFrom: 'FORGE_SCHEMA' })
  })

  it('need no database for help and version, whatever else is there', () => {
    expect(read(['--help'], {})).toEqual({ kind: 'help' })
    expect(read(['status', '-h'], {})).toEqual({ kind: 'help' })
    expect(read(['-v', '--json'], {})).toEqual({ kind: 'version' })
  })

  it.each([
    [['stauts'], "There is no command 'stauts'. Did you mean status?"],
    [['migrat'], "There is no command 'migrat'. Did you mean migrate?"],
    [
      ['dance'],
      "There is no command 'dance'. There are migrate, status, doctor, nodes, leaders, drain, crons, jobs.",
    ],
    [['status', '--scheme', 'x'], "There is no option '--scheme'. Did you mean --schema?"],
    [['status', '--no-json'], "There is no option '--no-json'."],
    [['status', '-x'], "There is no option '-x'."],
    [['status', '--schema'], '--schema needs a value.'],
    [['status', '--schema='], '--schema needs a value.'],
    [['status', '--schema', '--json'], '--schema needs a value.'],
    [['status', '--json=yes'], '--json takes no value.'],
    [['status', '--sql'], '--sql is not an option of this command.'],
    [['status', 'now'], 'status takes no arguments, only options.'],
    [[], 'Which command? There are migrate, status, doctor, nodes, leaders, drain, crons, jobs.'],
    [['__proto__'], "There is no command '__proto__'."],
    [['status', '--__proto__'], "There is no option '--__proto__'."],
  ])('are refused with the way out: %j', (args, message) => {
    expect(() => read(args)).toThrow(message)
  })

  it('about jobs name a verb, and which jobs', () => {
    expect(read(['jobs', 'list', '--state', 'running,retryable', '--limit=7'])).toEqual({
      kind: 'jobs',
      verb: 'list',
      databaseUrl: url,
      schema: undefined,
      filter: { state: ['running', 'retryable'], limit: 7 },
      ending: {},
      times: {},
      dryRun: false,
      yes: false,
    })
    expect(read(['jobs', 'cancel', 'a', 'b,c', '--id', 'd', '--reason', 'x', '-y'])).toMatchObject({
      filter: { ids: ['a', 'b', 'c', 'd'], limit: 10_000 },
      ending: { reason: 'x' },
      yes: true,
    })
    expect(
      read(['jobs', 'reschedule', '--all', '--delay', '5m', '--priority=high', '--dry-run']),
    ).toMatchObject({ filter: { all: true }, times: { delay: '5m', priority: 'high' }, dryRun: true })
    expect(read(['jobs', 'reschedule', 'a', '--run-at', '2030-12-24T18:00:00+01:00'])).toMatchObject({
      times: { runAt: new Date('2030-12-24T17:00:00Z') },
    })
    expect(read(['jobs', '--help', '--state=x'], {})).toEqual({ kind: 'help' })
  })

  it('about schedules name a verb, and which', () => {
    expect(read(['crons', 'list', '--limit', '5', '--after=a'])).toMatchObject({
      verb: 'list',
      limit: 5,
      after: 'a',
    })
    expect(
      read(['crons', 'trigger', 'report', '--at', '2030-01-01T00:00:00Z', '--by=ann', '--reason', 'x']),
    ).toEqual({
      kind: 'crons',
      verb: 'trigger',
      databaseUrl: url,
      schema: undefined,
      name: 'report',
      who: { by: 'ann', reason: 'x' },
      at: '2030-01-01T00:00:00Z',
      limit: undefined,
      after: undefined,
    })
  })

  it.each([
    [['crons'], 'What about crons? There are list, preview, trigger, pause, resume.'],
    [['crons', 'stop'], "There is no command 'stop'."],
    [['crons', 'list', 'x'], 'crons list takes no arguments, only options.'],
    [['crons', 'pause'], 'crons pause takes the name of one schedule.'],
    [['crons', 'pause', 'a', 'b'], 'crons pause takes the name of one schedule.'],
    [['crons', 'pause', 'a', '--at', 'x'], '--at is not an option of this command.'],
    [['crons', 'preview', 'a', '--by', 'x'], '--by is not an option of this command.'],
  ])('about schedules are refused with the way out: %j', (args, message) => {
    expect(() => read(args)).toThrow(message)
  })

  it.each([
    [['jobs'], 'What about jobs? There are list, show, explain, retry, cancel, discard, reschedule.'],
    [['jobs', '--all'], 'What about jobs?'],
    [['jobs', 'retyr'], "There is no command 'retyr'. Did you mean retry?"],
    [['jobs', 'list', 'x'], 'one job is shown by jobs show'],
    [['jobs', 'show'], 'jobs show takes the id of one job.'],
    [['jobs', 'explain', 'a', 'b'], 'jobs explain takes the id of one job.'],
    [['jobs', 'list', '--stat', 'x'], "There is no option '--stat'. Did you mean --state?"],
    [['jobs', 'list', '--yes'], '--yes is not an option of this command.'],
    [['jobs', 'list', '--all'], '--all is not an option of this command.'],
    [['jobs', 'retry', '--reason', 'x', 'a'], '--reason is not an option of this command.'],
    [['status', '--queue', 'x'], '--queue is not an option of this command.'],
    [['jobs', 'list', '--queue'], '--queue needs a value.'],
    [['jobs', 'reschedule', 'a'], 'needs --delay, --run-at or --priority'],
    [['jobs', 'reschedule', 'a', '--run-at', 'tomorrow'], 'needs a time with its zone'],
    [['jobs', 'reschedule', 'a', '--run-at', '2030-12-24T18:00:00'], 'needs a time with its zone'],
    [['jobs', 'reschedule', 'a', '--run-at', '2030-99-24T18:00:00Z'], 'needs a time with its zone'],
  ])('about jobs are refused with the way out: %j', (args, message) => {
    expect(() => read(args)).toThrow(message)
  })

  it('without a database say where to name one', () => {
    expect(() => read(['status'], {})).toThrow('Set DATABASE_URL, or pass --database-url.')
  })

  it.each([
    ['postgres://app:pw-8842@host/shop'],
    ['status', 'postgres://app:pw-8842@host/shop'],
    ['status', '--postgres://app:pw-8842@host/shop'],
    ['status', '--schema', 'postgres://app:pw-8842@host/shop'],
    ['status', '--schema', 'x', '-postgres://app:pw-8842@host/shop'],
    ['jobs', 'postgres://app:pw-8842@host/shop'],
    ['jobs', 'list', 'postgres://app:pw-8842@host/shop'],
    ['jobs', 'reschedule', 'x', '--run-at', 'postgres://app:pw-8842@host/shop'],
  ])('never show a connection string that stands in the wrong place: %s %s', (...args) => {
    let message = ''
    try {
      read(args)
    } catch (error) {
      message = String(error)
    }
    expect(message).toContain('UsageError')
    expect(message).not.toContain('8842')
  })
})
