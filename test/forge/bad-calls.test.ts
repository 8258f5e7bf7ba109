import { beforeAll, describe, expect, it } from 'vitest'
import type { EnqueueOptions, ForgeNode, JobDefinition, JobFilter, Tx } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { type Bundle, setup } from '../support/forge.js'
import { type Case, expectRefusal, rowCounts } from './refusal.js'

const database = useDatabase()
let bundle: Bundle
let job: JobDefinition<unknown, unknown>
let node: ForgeNode

beforeAll(async () => {
  bundle = setup(database)
  job = bundle.forge.job('bad.input', { run: (input: unknown) => input })
  node = await bundle.attach()
  // First ones, so that their lanes are there.
  const validated = bundle.forge.job('bad.validator', { run() {} })
  for (const each of [job, validated]) await (await each.enqueue()).result()
  // One that waits, which a wrong filter could reach.
  await job.enqueue('waiting', { delay: '1h' })
  return () => node.stop()
})

const nested = (levels: number): unknown => (levels === 0 ? 'bottom' : { down: nested(levels - 1) })
const cyclic: Record<string, unknown> = { list: [] }
;(cyclic.list as unknown[]).push({ again: cyclic })
const parsed = (text: string) => JSON.parse(text) as unknown

describe('an input', () => {
  const notJson = 'FORGE_INPUT_NOT_JSON'
  const cases: readonly Case[] = [
    ['over 1 MB', 'x'.repeat(1_000_001), 'FORGE_INPUT_TOO_LARGE', /limit 1 MB.*pass a reference/],
    ['over 1 MB in many parts', Array(200_000).fill('four'), 'FORGE_INPUT_TOO_LARGE', /limit 1 MB/],
    ['deeper than 100', nested(101), 'FORGE_INPUT_TOO_DEEP', /At input\.down\.down.*limit 100 levels/],
    ['text with NUL', { a: ['\0'] }, notJson, /At input\.a\[0\]: text with U\+0000/],
    ['a key with NUL', { '\0': 1 }, notJson, /a key with U\+0000/],
    ['half a surrogate pair', '\ud83d', notJson, /At input: .*half a surrogate pair/],
    ['NaN', { n: Number.NaN }, notJson, /At input\.n: NaN/],
    ['Infinity', [-Infinity], notJson, /At input\[0\]: -Infinity/],
    ['a BigInt', { n: 1n }, notJson, /At input\.n: a BigInt; pass it as text/],
    ['a cycle', cyclic, notJson, /At input\.list\[0\]\.again: a cycle/],
    ['a function', { f() {} }, notJson, /At input\.f: a value of type function/],
    ['a hole in a list', [undefined], notJson, /At input\[0\]: a value of type undefined/],
    ['a Map', new Map([[1, 2]]), notJson, /a Map, which JSON would empty/],
    ['an invalid Date', { at: new Date(Number.NaN) }, notJson, /At input\.at: an invalid Date/],
    [
      'a throwing getter',
      Object.defineProperty({}, 'x', {
        enumerable: true,
        get: () => {
          throw new Error('no')
        },
      }),
      notJson,
      /getter or toJSON/,
    ],
  ]
  it.each(cases)('that holds %s is refused, alone and among others', async (...given) => {
    await expectRefusal(database, () => job.enqueue(given[1]), given)
    await expectRefusal(database, () => job.enqueueMany(['good', given[1]]), given)
  })
})

describe('a validator', () => {
  const standard = (validate: (value: unknown) => unknown) => ({
    '~standard': { version: 1, vendor: 'test', validate },
  })
  const cases: readonly Case[] = [
    [
      'throws',
      () => {
        throw new TypeError('a bug in it')
      },
      'FORGE_INPUT_INVALID',
      /the validator threw: a bug in it/,
    ],
    [
      'rejects',
      () => Promise.reject(new Error('no service')),
      'FORGE_INPUT_INVALID',
      /the validator threw: no service/,
    ],
    [
      'throws nothing',
      () => {
        // eslint-disable-next-line @typescript-eslint/only-throw-error
        throw undefined
      },
      'FORGE_INPUT_INVALID',
      /the validator threw/,
    ],
    ['answers nothing', () => undefined, 'FORGE_INPUT_INVALID', /validator/],
    [
      'finds issues',
      () => ({ issues: [{ message: 'is too old', path: ['user', { key: 'age' }] }] }),
      'FORGE_INPUT_INVALID',
      /'bad.validator': user\.age: is too old/,
    ],
  ]
  it.each(cases)('that %s refuses the input', (...given) => {
    const own = bundle.forge.job('bad.validator', {
      input: standard(given[1] as () => unknown) as never,
      run() {},
    })
    return expectRefusal(database, () => own.enqueue({} as never), given)
  })
})

describe('tx', () => {
  const finished = 'FORGE_TX_FINISHED'
  const inside = /Pass a client inside BEGIN … COMMIT/

  it('that is a pool is refused, and the pool is not asked', async () => {
    const given: Case = ['', bundle.pool, 'FORGE_TX_IS_POOL', /Check out one client and BEGIN on it/]
    await expectRefusal(database, () => job.enqueue(1, { tx: bundle.pool }), given)
    await expectRefusal(database, () => job.enqueueMany([1], { tx: bundle.pool }), given)
    expect(bundle.pool.totalCount).toBe(0)
  })

  it('that was not begun, is over, has failed or was released is refused', async () => {
    const client = await bundle.pool.connect()
    const refused = () =>
      expectRefusal(database, () => job.enqueue(1, { tx: client }), ['', 0, finished, inside])
    await refused()
    await client.query('BEGIN')
    await job.enqueue('rolled back', { tx: client })
    await client.query('ROLLBACK')
    await refused()
    await client.query('BEGIN')
    await client.query('SELECT 1 / 0').catch(() => {})
    await refused()
    await client.query('ROLLBACK')
    client.release()
    await refused()
  })

  it('of node.transaction is refused once that is over', async () => {
    let kept: Tx | undefined
    await node.transaction(async (tx) => void (kept = tx))
    await expectRefusal(database, () => job.enqueue(1, { tx: kept as Tx }), ['', 0, finished, inside])
  })

  it.each([null, 'client', {}, { query: 'SELECT 1' }])('that is %j is refused', (tx) =>
    expectRefusal(database, () => job.enqueue(1, { tx } as never), [
      '',
      0,
      'FORGE_TX_INVALID',
      /tx needs node-postgres' query/,
    ]),
  )

  it('is not harmed by an input that is refused', async () => {
    const before = await rowCounts(database)
    await node.transaction(async (tx) => {
      await expect(job.enqueue({ n: 1n }, { tx })).rejects.toMatchObject({ code: 'FORGE_INPUT_NOT_JSON' })
      expect((await tx.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
    })
    expect(await rowCounts(database)).toEqual(before)
  })
})

describe('an option of enqueue', () => {
  const cases: readonly Case[] = [
    ['unknown', { dealy: '5s' }, 'FORGE_OPTION_UNKNOWN', /'dealy': Did you mean 'delay'\?/],
    ['named __proto__', parsed('{"__proto__":{"delay":1}}'), 'FORGE_OPTION_UNKNOWN', /__proto__/],
    ['no object', 'high', 'FORGE_OPTION_INVALID', /options of enqueue must be an object/],
    ['a malformed delay', { delay: '5 s' }, 'FORGE_DURATION_INVALID', /Option delay is '5 s'.*'30s'/],
    ['a delay into the past', { delay: -1 }, 'FORGE_DURATION_INVALID', /Option delay is -1/],
    [
      'delay and runAt',
      { delay: 1, runAt: new Date() },
      'FORGE_OPTION_INVALID',
      /delay and runAt exclude each other/,
    ],
    ['runAt that is text', { runAt: '2030-01-01' }, 'FORGE_OPTION_INVALID', /runAt must be a valid Date/],
    [
      'an invalid runAt',
      { runAt: new Date(Number.NaN) },
      'FORGE_OPTION_INVALID',
      /runAt must be a valid Date/,
    ],
    [
      'a priority',
      { priority: 101 },
      'FORGE_OPTION_INVALID',
      /priority must be one of background.* 0 to 100/,
    ],
    [
      'a queue of a hostile name',
      { queue: "'; drop table job --" },
      'FORGE_JOB_NAME_INVALID',
      /The queue name is/,
    ],
    ['an id that is no UUID', { id: 'signup-42' }, 'FORGE_OPTION_INVALID', /id must be a UUID/],
  ]
  it.each(cases)('that is %s is refused', async (...given) => {
    await expectRefusal(database, () => job.enqueue(1, given[1] as EnqueueOptions), given)
    await expectRefusal(database, () => job.enqueueMany([1], given[1] as EnqueueOptions), [
      given[0],
      0,
      given[2],
      /./,
    ])
  })

  it('is refused where it cannot mean anything: one id for many, no list, a timeout of result()', async () => {
    const id = '01890a5d-ac96-774b-bcce-b302099a8057'
    const many = job.enqueueMany as (inputs: unknown, options?: object) => Promise<unknown>
    await expectRefusal(database, () => many([1, 2], { id }), [
      '',
      0,
      'FORGE_OPTION_INVALID',
      /id names one job/,
    ])
    await expectRefusal(database, () => many('ab'), [
      '',
      0,
      'FORGE_OPTION_INVALID',
      /must be a list of inputs/,
    ])
    const handle = await job.enqueue(1, { delay: '1h' })
    const asked = handle.result({ timeout: 'long' as '1s' })
    await expect(asked).rejects.toMatchObject({ code: 'FORGE_DURATION_INVALID' })
  })
})

describe('a filter', () => {
  const invalid = 'FORGE_FILTER_INVALID'
  const cases: readonly Case[] = [
    ['an unknown key', { sate: 'running' }, 'FORGE_OPTION_UNKNOWN', /'sate': Did you mean 'state'\?/],
    ['a key of Object.prototype', parsed('{"__proto__":{"all":true}}'), 'FORGE_OPTION_UNKNOWN', /__proto__/],
    ['an unknown state', { state: 'runing' }, invalid, /state must be one of scheduled.*quarantined/],
    ['one unknown state of two', { state: ['running', 'done'] }, invalid, /state must be one of/],
    ['an id that is no UUID', { ids: ['1; drop'] }, invalid, /ids must be a list of job ids/],
    ['a name with NUL', { name: 'a\0' }, invalid, /name must be text/],
    ['a queue that is no text', { queue: 7 }, invalid, /queue must be text/],
    ['a page that is no id', { before: 'x' }, invalid, /before must be the id of a job/],
    ['a limit of 0', { limit: 0 }, invalid, /limit must be a whole number from 1 to/],
    ['a limit that is too large', { limit: 100_000 }, invalid, /limit must be a whole number from 1 to/],
  ]
  it.each(cases)('with %s is refused by list, retry and cancel', async (...given) => {
    const filter = given[1] as JobFilter
    await expectRefusal(database, () => node.jobs.list(filter), given)
    await expectRefusal(database, () => node.jobs.retry(filter), given)
    await expectRefusal(database, () => node.jobs.cancel(filter), given)
  })

  it.each([{}, { limit: 5 }, { all: false }, { all: 'yes' }])(
    'that is %j changes nothing without all: true',
    async (filter) => {
      const given: Case = ['', filter, 'FORGE_FILTER_EMPTY', /Name ids or conditions, or say all: true/]
      await expectRefusal(database, () => node.jobs.retry(filter as JobFilter), given)
      await expectRefusal(database, () => node.jobs.cancel(filter as JobFilter), given)
    },
  )

  it('that is an id is checked like any other', async () => {
    const given: Case = ['', 'x', invalid, /ids must be a list of job ids/]
    await expectRefusal(database, () => node.jobs.get("x'; drop table job --"), given)
    await expectRefusal(database, () => node.jobs.cancel('x'), given)
    await expectRefusal(database, () => node.jobs.retry(null as never), [
      '',
      null,
      'FORGE_OPTION_INVALID',
      /must be an object/,
    ])
  })

  it('may have a reason with it that PostgreSQL could not store', async () => {
    const handle = await job.enqueue(1, { delay: '1h' })
    expect(await handle.cancel('why\0\ud800'.repeat(1_000))).toBe(true)
    expect((await node.jobs.get(handle.id))?.reason).toMatch(/^why\uFFFD\uFFFDwhy/)
  })
})
