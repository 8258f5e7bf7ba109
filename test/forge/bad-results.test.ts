import { beforeAll, describe, expect, it } from 'vitest'
import type { ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { type Bundle, setup } from '../support/forge.js'

const database = useDatabase()
let bundle: Bundle
let node: ForgeNode

beforeAll(async () => {
  bundle = setup(database)
  node = await bundle.attach()
  return () => node.stop()
})

const cyclic: Record<string, unknown> = { list: [] }
;(cyclic.list as unknown[]).push({ again: cyclic })
const parsed = (text: string) => JSON.parse(text) as unknown

describe('what a handler gives back', () => {
  const text = 'a\0b\ud800'
  it.each<[string, () => unknown, unknown]>([
    ['NUL and half a surrogate pair', () => ({ [text]: [text] }), { 'a\uFFFDb\uFFFD': ['a\uFFFDb\uFFFD'] }],
    ['a cycle', () => ({ self: cyclic }), { self: { list: [{ again: '[cycle]' }] } }],
    ['BigInt, NaN and functions', () => ({ n: 1n, x: Number.NaN, f() {} }), { n: '1', x: null }],
    ['__proto__', () => parsed('{"__proto__":{"polluted":true}}'), parsed('{"__proto__":{"polluted":true}}')],
  ])('may hold %s: the job completes, and result() gives what can be kept', async (what, value, kept) => {
    const own = bundle.forge.job(`gives.${what.replace(/\W+/g, '.').replace(/^\W|_/g, '')}`, { run: value })
    expect(await (await own.enqueue()).result()).toEqual(kept)
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  })

  it('may be of 10 MB: the job completes, and result() says that it was not kept', async () => {
    const own = bundle.forge.job('gives.large', { run: () => ['x'.repeat(10_000_000)] })
    const handle = await own.enqueue()
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_RESULT_TOO_LARGE' })
    expect(await node.jobs.get(handle.id)).toMatchObject({
      state: 'completed',
      result: null,
      resultTooLarge: true,
    })
  })

  it.each<[string, () => unknown, RegExp]>([
    ['an error of 10 MB', () => new Error('x'.repeat(10_000_000)), /^x+…$/],
    [
      'an error with NUL',
      () => Object.assign(new Error(text), { code: text, stack: text }),
      /^a\uFFFDb\uFFFD$/,
    ],
    [
      'an error that is its own cause',
      () => Object.assign(new Error('round'), { cause: cyclic, own: cyclic }),
      /^round$/,
    ],
    ['a text', () => 'just text', /^just text$/],
    ['nothing', () => undefined, /undefined/],
    [
      'an object that throws when it is read',
      () =>
        new Proxy(
          {},
          {
            get: () => {
              throw new Error('no')
            },
          },
        ),
      /./,
    ],
  ])('may be the throw of %s: the job is discarded, and says why', async (what, thrown, message) => {
    const own = bundle.forge.job(`throws.${what.replace(/\W+/g, '.')}`, {
      retry: { attempts: 1 },
      run: () => {
        throw thrown()
      },
    })
    const handle = await own.enqueue()
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_JOB_DISCARDED' })
    const found = await node.jobs.get(handle.id)
    expect(found).toMatchObject({
      state: 'discarded',
      errors: [{ message: expect.stringMatching(message) as string }],
    })
    expect(JSON.stringify(found?.errors).length).toBeLessThan(20_000)
  })
})
