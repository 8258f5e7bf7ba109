import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { EnqueueOptions, JobSettings } from '../../src/index.js'
import { decodeHints } from '../../src/database/hints.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

const stored = async (id: string) =>
  (
    await database.query<{ tags: string[] | null; parent: string | null }>(
      'select tags, parent from forge.job where id = $1',
      [id],
    )
  )[0]

const hard = [
  'plain',
  'with "quotes"',
  'back\\slash',
  'comma, {brace}',
  ' space ',
  'null',
  'line\nbreak',
  'ж🚀',
]

describe('tags and parent', () => {
  it('are stored as they were given, alone, in bulk, together and in a transaction', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('tagged', { queue: 'tagged', run: () => null })
    await using node = await attach({ roles: ['gateway'] })
    const parent = randomUUID()
    const options = { tags: hard, parent: parent.toUpperCase() }
    const made = [
      await job.enqueue({}, options),
      ...(await Promise.all([job.enqueue({}, options), job.enqueue({}, options)])),
      ...(await job.enqueueMany([{}, {}], options)),
      await node.transaction((tx) => job.enqueue({}, { ...options, tx })),
      await job.enqueue({}, { ...options, id: randomUUID(), delay: '1h' }),
    ]
    for (const { id } of made) expect(await stored(id)).toEqual({ tags: hard, parent })
    expect(await stored((await job.enqueue({}, { tags: [] })).id)).toEqual({ tags: null, parent: null })
  })

  it('job.enqueue and job.again name the job that runs as the parent, unless another is given', async () => {
    const { forge, attach } = setup(database)
    const other = randomUUID()
    const child = forge.job('family.child', { queue: 'child', run: () => null })
    const parent = forge.job('family.parent', {
      async run(input: { last?: boolean }, job) {
        if (input.last) return []
        const made = [
          await job.enqueue(child, {}),
          await job.again({ last: true }, { delay: '1h' }),
          await job.enqueue(child, {}, { parent: other }),
        ]
        return made.map(({ id }) => id)
      },
    })
    await using _node = await attach({ queues: { child: false } })
    const handle = await parent.enqueue({})
    const ids = await handle.result()
    const parents = await Promise.all(ids.map(async (id) => (await stored(id))?.parent))
    expect(parents).toEqual([handle.id, handle.id, other])
  })
})

describe('hints', () => {
  it('say the most urgent position of what was made, one per lane', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('positions', { queue: 'positions', run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    const listener = await database.pool({ max: 1 }).connect()
    const heard: string[] = []
    listener.on('notification', ({ payload }) => {
      heard.push(...(decodeHints(payload ?? '', 'me')?.get('jobs.ready') ?? []))
    })
    await listener.query('listen forge_forge')
    await Promise.all([
      job.enqueue({}, { priority: 'background' }),
      job.enqueue({}, { priority: 'background' }),
      job.enqueue({}, { priority: 'critical' }),
    ])
    const [row] = await database.query<{ lane: number; due: number }>(
      `select lane, floor(extract(epoch from min(due)))::float8 as due
       from forge.job j join forge.job_lane l on l.id = j.lane where queue = 'positions' group by lane`,
    )
    await until(() => heard.includes(`${row?.lane}@${row?.due}`), { label: 'the hint' })
    // The first goes alone, the others together: of these the more urgent one is named.
    expect(heard.filter((key) => key.startsWith(`${row?.lane}@`))).toHaveLength(2)
    listener.release(true)
  })
})

describe('what is refused before it reaches SQL', () => {
  const cases: Record<string, [EnqueueOptions, string]> = {
    'tags that are no list': [{ tags: 'a' as never }, 'FORGE_OPTION_INVALID'],
    'a tag that is no text': [{ tags: [1] as never }, 'FORGE_OPTION_INVALID'],
    'holes among the tags': [{ tags: new Array<string>(3) }, 'FORGE_OPTION_INVALID'],
    'an empty tag': [{ tags: [''] }, 'FORGE_OPTION_INVALID'],
    'a tag of 101 bytes': [{ tags: ['é'.repeat(50) + 'x'] }, 'FORGE_OPTION_INVALID'],
    'a tag with NUL': [{ tags: ['a\u0000'] }, 'FORGE_OPTION_INVALID'],
    'a tag with half a pair': [{ tags: ['a\uD800'] }, 'FORGE_OPTION_INVALID'],
    '21 tags': [{ tags: Array.from({ length: 21 }, (_, n) => `t${n}`) }, 'FORGE_OPTION_INVALID'],
    'a parent that is no UUID': [{ parent: '42' }, 'FORGE_OPTION_INVALID'],
    'a parent of null': [{ parent: null as never }, 'FORGE_OPTION_INVALID'],
    'an empty key': [{ key: '' }, 'FORGE_OPTION_INVALID'],
    'a key that is a number': [{ key: 7 as never }, 'FORGE_OPTION_INVALID'],
    'a key of 201 bytes': [{ key: 'k'.repeat(201) }, 'FORGE_OPTION_INVALID'],
    'a key with NUL': [{ key: 'k\u0000' }, 'FORGE_OPTION_INVALID'],
    'an option that is misspelt': [{ tag: ['a'] } as never, 'FORGE_OPTION_UNKNOWN'],
  }
  it.each(Object.entries(cases))('%s', async (_, [options, code]) => {
    const { forge, attach } = setup(database)
    const job = forge.job('refused', { unique: {}, run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    await expect(job.enqueue({}, options)).rejects.toMatchObject({ code })
    await expect(job.enqueueMany([{}], options)).rejects.toMatchObject({ code })
    expect(await database.query(`select from forge.job_unique where scope = 'refused'`)).toEqual([])
  })

  it('names the nearest option', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('near', { run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    await expect(job.enqueue({}, { perent: 'x' } as never)).rejects.toThrow("Did you mean 'parent'?")
  })

  it('a key for a definition that has no use for it, and a delay for one that is debounced', async () => {
    const { forge, attach } = setup(database)
    const plain = forge.job('no.key', { run: () => null })
    const late = forge.job('no.delay', { unique: { onConflict: 'debounce', for: '1s' }, run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    await expect(plain.enqueue({}, { key: 'a' })).rejects.toThrow("'no.key' has none")
    await expect(late.enqueue({}, { delay: '1s' })).rejects.toMatchObject({ code: 'FORGE_OPTION_INVALID' })
    await expect(late.enqueue({}, { runAt: new Date() })).rejects.toMatchObject({
      code: 'FORGE_OPTION_INVALID',
    })
  })

  it('the input is read when it is called, whatever becomes of it later', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('reads', { run: (input: { n: number }) => input.n })
    await using _node = await attach()
    const input = { n: 1 }
    const call = job.enqueue(input)
    input.n = 2
    expect(await (await call).result()).toBe(1)
  })
})

describe('the function `by`', () => {
  const boom = new Error('boom')
  const odd: Record<string, [(input: unknown) => unknown, string]> = {
    throws: [
      () => {
        throw boom
      },
      "'s threw: boom",
    ],
    'gives nothing': [() => undefined, 'a value of type undefined'],
    'gives null': [() => null, 'a value of type null'],
    'gives an object': [() => ({}), 'a value of type object'],
    'gives a promise that rejects': [() => Promise.reject(boom), 'a promise'],
    'gives NaN': [() => Number.NaN, 'NaN'],
    'gives Infinity': [() => Infinity, 'Infinity'],
    'gives a bigint': [() => 1n, 'a value of type bigint'],
    'gives empty text': [() => '', 'empty text'],
    'gives 201 bytes': [() => 'é'.repeat(100) + 'x', '201 bytes of text'],
    'gives 10 MB': [() => 'x'.repeat(10_000_000), '10000000 bytes of text'],
    'gives NUL': [() => 'a\u0000', 'U+0000'],
    'gives half a pair': [() => '\uDC00', 'half a surrogate pair'],
  }
  it.each(Object.entries(odd))('that %s makes no job', async (_, [by, says]) => {
    const { forge, attach } = setup(database)
    const job = forge.job('odd.by', { unique: { by: by as () => string }, run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    const refusal = {
      code: 'FORGE_KEY_INVALID',
      message: expect.stringContaining(says.replace("'s ", '')) as unknown,
    }
    await expect(job.enqueue({})).rejects.toMatchObject(refusal)
    await expect(job.enqueueMany([{}, {}])).rejects.toMatchObject(refusal)
    expect(await database.query(`select from forge.job_unique where scope = 'odd.by'`)).toEqual([])
  })

  it('is not called where a key is given, and may give 200 bytes of anything else', async () => {
    const { forge, attach } = setup(database)
    const by = (input: { key: string }): string => {
      if (!input.key) throw boom
      return input.key
    }
    const job = forge.job('fine.by', { unique: { by }, run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    expect((await job.enqueue({ key: '' }, { key: 'given' })).created).toBe(true)
    for (const key of [...hard, `${'é'.repeat(99)}xx`]) {
      expect((await job.enqueue({ key })).created).toBe(true)
      expect((await job.enqueue({ key })).created).toBe(false)
    }
  })
})

describe('unique of a definition', () => {
  const wrong: Record<string, [unknown, string]> = {
    'that is no object': [true, 'FORGE_OPTION_INVALID'],
    'with an unknown member': [{ onconflict: 'skip' }, 'FORGE_OPTION_UNKNOWN'],
    'with a `by` that is no function': [{ by: 'userId' }, 'FORGE_OPTION_INVALID'],
    'with an unknown mode': [{ onConflict: 'queue' }, 'FORGE_OPTION_INVALID'],
    'with a time that has no unit': [{ for: '5' }, 'FORGE_DURATION_INVALID'],
    'with a time of zero': [{ for: 0 }, 'FORGE_OPTION_INVALID'],
    'debounced without a time': [{ onConflict: 'debounce' }, 'FORGE_OPTION_INVALID'],
    'with maxWait but no debounce': [{ for: '1s', maxWait: '2s' }, 'FORGE_OPTION_INVALID'],
    'with a maxWait of zero': [{ onConflict: 'debounce', for: '1s', maxWait: 0 }, 'FORGE_OPTION_INVALID'],
  }
  it.each(Object.entries(wrong))('%s is refused', (_, [unique, code]) => {
    const { forge } = setup(database)
    const settings = { unique } as JobSettings
    expect(() => forge.job('wrong', { ...settings, run: () => null })).toThrow(
      expect.objectContaining({ code }) as Error,
    )
  })
})
