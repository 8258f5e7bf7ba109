import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { createForge, type JobSettings } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { type Case, expectRefusal } from './refusal.js'

const database = useDatabase()
const parsed = (text: string) => JSON.parse(text) as unknown

describe('an option of attach', () => {
  const unit = /text such as '250ms', '30s'/
  const schemaName = /A schema name is 1 to 63 of a-z, 0-9 and _, starts with a letter, and not with pg_/
  const cases: readonly Case[] = [
    ['unknown, near a known one', { shema: 'x' }, 'FORGE_OPTION_UNKNOWN', /'shema': Did you mean 'schema'\?/],
    [
      'unknown in a group',
      { lease: { renewMS: 1 } },
      'FORGE_OPTION_UNKNOWN',
      /'lease.renewMS': .*'renewMs'\?/,
    ],
    ['unknown, near none', { zzzzzzzzz: 1 }, 'FORGE_OPTION_UNKNOWN', /Known: .*roles.*schema/],
    ['named __proto__', parsed('{"__proto__":{"schema":"x"}}'), 'FORGE_OPTION_UNKNOWN', /__proto__/],
    ['no object', 'worker', 'FORGE_OPTION_INVALID', /options must be an object/],
    ['a role that is none', { roles: ['wroker'] }, 'FORGE_OPTION_INVALID', /did you mean 'worker'\?/],
    ['one role for a list', { roles: 'worker' }, 'FORGE_OPTION_INVALID', /roles must be a list/],
    [
      'a path without a slash',
      { path: 'forge' },
      'FORGE_OPTION_INVALID',
      /path must be a path such as '\/forge'/,
    ],
    ['a path with a pattern', { path: '/(.*)' }, 'FORGE_OPTION_INVALID', /path must be a path such as/],
    ['a number out of range', { concurrency: 0 }, 'FORGE_OPTION_INVALID', /whole number from 1 to 1000/],
    [
      'a logger with holes',
      { logger: { info() {} } },
      'FORGE_OPTION_INVALID',
      /debug, info, warn and error, or be false/,
    ],
    [
      'a policy that is no function',
      { dashboard: { authorize: true } },
      'FORGE_OPTION_INVALID',
      /must be a function/,
    ],
    ['a queue option', { queues: { mail: 5 } }, 'FORGE_OPTION_INVALID', /queues.mail must be an object/],
    [
      'a queue without a slot',
      { queues: { mail: { concurrency: 0 } } },
      'FORGE_OPTION_INVALID',
      /queues.mail.concurrency must be a whole number from 1/,
    ],
    [
      'a retention below 0',
      { retention: { completed: '-1d' } },
      'FORGE_DURATION_INVALID',
      /retention.completed/,
    ],
    [
      'a retention of an unknown state',
      { retention: { failed: '1d' } },
      'FORGE_OPTION_UNKNOWN',
      /retention.failed/,
    ],
    [
      'a hostile capability',
      { capabilities: ["a'; drop"] },
      'FORGE_OPTION_INVALID',
      /capabilities of 1 to 63/,
    ],
    ...[
      '10 s',
      '1e3s',
      '5 minutes',
      '',
      's',
      '-1s',
      '٣s',
      -1,
      Number.NaN,
      Infinity,
      null,
      {},
      '99999999d',
    ].map((value): Case => [
      `the duration ${JSON.stringify(value)}`,
      { stopTimeout: value },
      'FORGE_DURATION_INVALID',
      unit,
    ]),
    ...[
      '"x"',
      'x"y',
      "x'y",
      'a'.repeat(64),
      'Forge',
      'pg_forge',
      'Ünder',
      '1x',
      '',
      'a b',
      'a\0',
      7,
      null,
    ].map((value): Case => [
      `the schema ${JSON.stringify(value)}`,
      { schema: value },
      'FORGE_SCHEMA_NAME_INVALID',
      schemaName,
    ]),
  ]
  it.each(cases)('that is %s is refused', async (...given) => {
    const { forge, pool } = setup(database)
    const options = typeof given[1] === 'object' ? { logger: false, ...given[1] } : given[1]
    await expectRefusal(database, () => forge.attach(null, pool, options), given)
  })
})

describe('a definition', () => {
  const rule = /A job name is 1 to 200 bytes of letters, digits/
  const names: readonly Case[] = [
    '',
    '__proto__',
    'constructor\0',
    "o'neill",
    '"quoted"',
    '; drop table job --',
    'a b',
    'a\nb',
    '<script>',
    '.hidden',
    'x'.repeat(201),
    'ü'.repeat(101),
    '\ud800',
    'a\u202eb',
    7,
    null,
    undefined,
    Symbol('name'),
    {},
  ].map((name): Case => [`the name ${inspect(name).slice(0, 30)}`, name, 'FORGE_JOB_NAME_INVALID', rule])
  it.each(names)('with %s is refused', (...given) =>
    expectRefusal(database, () => createForge().job(given[1] as string, { run() {} }), given),
  )

  it('takes a name of exactly 200 bytes, and runs it', async () => {
    const { forge, attach } = setup(database)
    const long = forge.job('ü'.repeat(100), { run: () => 'ran' })
    await using _node = await attach()
    expect(await (await long.enqueue()).result()).toBe('ran')
  })

  const settings: readonly Case[] = [
    [
      'unknown',
      { tiemout: '1s' },
      'FORGE_OPTION_UNKNOWN',
      /'bad.settings.tiemout': Did you mean 'timeout'\?/,
    ],
    [
      'unknown in a group',
      { retry: { attemps: 1 } },
      'FORGE_OPTION_UNKNOWN',
      /retry.attemps': Did you mean 'attempts'\?/,
    ],
    ['a queue of a hostile name', { queue: '"' }, 'FORGE_JOB_NAME_INVALID', /The queue name is/],
    ['a priority', { priority: 'urgent' }, 'FORGE_OPTION_INVALID', /background, low, normal, high, critical/],
    [
      'attempts',
      { retry: { attempts: 0 } },
      'FORGE_OPTION_INVALID',
      /attempts must be a whole number from 1/,
    ],
    ['a timeout of 0', { timeout: 0 }, 'FORGE_OPTION_INVALID', /timeout must be at least 1 ms/],
    ['too many attempts', { retry: { attempts: 1_001 } }, 'FORGE_OPTION_INVALID', /retry.attempts must be/],
    [
      'an unknown backoff',
      { retry: { backoff: 'quadratic' } },
      'FORGE_OPTION_INVALID',
      /retry.backoff must be 'fixed', 'linear', 'exponential' or a function/,
    ],
    ['a base that is none', { retry: { base: 'soon' } }, 'FORGE_DURATION_INVALID', /retry.base is 'soon'/],
    ['a max below 0', { retry: { max: -1 } }, 'FORGE_DURATION_INVALID', /retry.max is -1/],
    ['a jitter over 1', { retry: { jitter: 1.5 } }, 'FORGE_OPTION_INVALID', /retry.jitter must be 0 to 1/],
    [
      'a when that is none',
      { retry: { when: true } },
      'FORGE_OPTION_INVALID',
      /retry.when must be a function/,
    ],
    ['a keep that is none', { keep: '7d' }, 'FORGE_OPTION_INVALID', /bad.settings.keep must be an object/],
    ['a keep of an unknown state', { keep: { failed: 1 } }, 'FORGE_OPTION_UNKNOWN', /keep.failed/],
    ['a keep below 0', { keep: { completed: -5 } }, 'FORGE_DURATION_INVALID', /keep.completed is -5/],
    [
      'a keep of no end',
      { keep: { discarded: Infinity } },
      'FORGE_DURATION_INVALID',
      /keep.discarded is Inf/,
    ],
    [
      'a schema that is none',
      { input: { parse() {} } },
      'FORGE_OPTION_INVALID',
      /Standard Schema \(zod, valibot/,
    ],
    ['no handler', { run: undefined }, 'FORGE_OPTION_INVALID', /bad.settings.run must be a function/],
  ]
  it.each(settings)('with a setting that is %s is refused', (...given) => {
    const definition = { run() {}, ...(given[1] as JobSettings) }
    return expectRefusal(database, () => createForge().job('bad.settings', definition), given)
  })
})
