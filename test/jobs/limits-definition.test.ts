import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { createForge } from '../../src/index.js'
import { readDefinition } from '../../src/jobs/define.js'
import { gatesOf } from '../../src/jobs/limits.js'
import { type Case, expectRefusal } from '../forge/refusal.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'

const database = useDatabase()
const define = (definition: Record<string, unknown>) =>
  readDefinition('send', { run: () => null, ...definition })

describe('a limit of a definition', () => {
  it('is kept with its key and its time', () => {
    const by = () => 'a'
    const { limits } = define({ concurrency: { limit: 10_000 }, rate: { limit: 100_000, per: '1m', by } })
    expect(limits).toEqual({
      concurrency: { limit: 10_000, keyed: false },
      rate: { limit: 100_000, perMs: 60_000, keyed: true, by },
    })
    expect(define({}).limits).toEqual({})
  })

  const cases: readonly Case[] = [
    ['no object', { concurrency: 5 }, 'FORGE_OPTION_INVALID', /send.concurrency must be an object/],
    [
      'an empty one',
      { concurrency: {} },
      'FORGE_OPTION_INVALID',
      /concurrency.limit must be a whole number from 1 to 10000/,
    ],
    ...[0, -1, 1.5, 10_001, '5', Number.NaN, null].map((limit): Case => [
      `the number ${String(limit)}`,
      { concurrency: { limit } },
      'FORGE_OPTION_INVALID',
      /from 1 to 10000/,
    ]),
    [
      'an unknown key',
      { concurrency: { limit: 1, bye: () => '' } },
      'FORGE_OPTION_UNKNOWN',
      /'send.concurrency.bye': Did you mean 'by'\?/,
    ],
    [
      'a by that is no function',
      { concurrency: { limit: 1, by: 'userId' } },
      'FORGE_OPTION_INVALID',
      /by must be a function/,
    ],
    [
      'a rate of zero',
      { rate: { limit: 0, per: '1s' } },
      'FORGE_OPTION_INVALID',
      /rate.limit must be a whole number from 1 to 100000/,
    ],
    ['a rate beyond', { rate: { limit: 100_001, per: '1s' } }, 'FORGE_OPTION_INVALID', /from 1 to 100000/],
    [
      'a rate per no time',
      { rate: { limit: 1, per: 0 } },
      'FORGE_OPTION_INVALID',
      /rate.per must be at least 1 ms/,
    ],
    [
      'a rate without its time',
      { rate: { limit: 1 } },
      'FORGE_DURATION_INVALID',
      /rate.per is of type undefined/,
    ],
    [
      'a time with an odd unit',
      { rate: { limit: 1, per: '1 minute' } },
      'FORGE_DURATION_INVALID',
      /rate.per is '1 minute'/,
    ],
    [
      'an unknown key of a rate',
      { rate: { limit: 1, par: '1s' } },
      'FORGE_OPTION_UNKNOWN',
      /Did you mean 'per'\?/,
    ],
  ]
  it.each(cases)('is refused when it is %s', async (...refused) => {
    const call = () => createForge().job('send', { run: () => null, ...(refused[1] as object) })
    await expectRefusal(database, call, refused)
  })
})

describe('the gates of a job', () => {
  const job = { queue: 'mail', input: { user: 7 }, queueLimited: false }

  it('stand in the order job, rate, queue; a job without limits has none', () => {
    const by = (input: unknown) => (input as { user: number }).user
    const full = define({ concurrency: { limit: 1, by }, rate: { limit: 1, per: 1 } })
    expect(gatesOf(full, job)).toEqual(['c/send=7', 'r/send'])
    expect(gatesOf(full, { ...job, queueLimited: true })).toEqual(['c/send=7', 'r/send', 'q/mail'])
    expect(gatesOf(full, { ...job, key: 'given' })).toEqual(['c/send=given', 'r/send'])
    expect(gatesOf(define({}), { ...job, queueLimited: true })).toEqual(['q/mail'])
    expect(gatesOf(define({}), job)).toBe(null)
  })

  it('are the same for 5 and for its text', () => {
    const of = (key: unknown) => gatesOf(define({ concurrency: { limit: 1, by: () => key } }), job)
    expect(of(5)).toEqual(of('5'))
    expect(of('x'.repeat(200))).toEqual([`c/send=${'x'.repeat(200)}`])
  })
})

describe('a key', () => {
  it.each([
    ['undefined', () => undefined, /of type undefined/],
    ['null', () => null, /of type null/],
    ['NaN', () => Number.NaN, /gave NaN/],
    ['an object', () => ({ toString: () => 'x' }), /of type object/],
    ['a promise', () => Promise.resolve('x'), /gave a promise/],
    ['201 bytes', () => 'é'.repeat(101), /gave 202 bytes/],
    ['a NUL', () => 'a\u0000b', /U\+0000/],
    ['half a character', () => 'a\ud800', /half a surrogate/],
    [
      'thrown',
      () => {
        throw new Error('no such user')
      },
      /by threw: no such user/,
    ],
  ])('that is %s fails the enqueue, and nothing is written', async (_, by, message) => {
    const { forge, attach } = setup(database)
    const job = forge.job('odd', { concurrency: { limit: 1, by: by as () => string }, run: () => null })
    const rate = forge.job('odd.rate', {
      rate: { limit: 1, per: 1, by: by as () => string },
      run: () => null,
    })
    await using _node = await attach()
    await expectRefusal(database, () => job.enqueue({}), ['', by, 'FORGE_KEY_INVALID', message])
    await expectRefusal(database, () => rate.enqueueMany([{}, {}]), ['', by, 'FORGE_KEY_INVALID', message])
  })

  it('is made of what the schema gives, as the handler gets it', async () => {
    const { forge, attach } = setup(database)
    const seen: unknown[] = []
    const job = forge.job('parsed', {
      input: z.string().transform((text) => ({ n: Number(text) })),
      concurrency: { limit: 1, by: (input) => (seen.push(input), input.n) },
      run: (input) => input.n,
    })
    await using _node = await attach()
    expect(await (await job.enqueue('7')).result()).toBe(7)
    expect(seen).toEqual([{ n: 7 }])
  })
})
