import { AssertionError } from 'node:assert'
import { describe, expect, it } from 'vitest'
import type { JobDefinition } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { bench, rejection } from './test-forge-kit.js'

const database = useDatabase()

interface Mail {
  to: string
  lines?: number[]
  meta?: { at?: Date; deep?: { a?: number; b?: number } }
}

async function setupMail() {
  let mail = null as unknown as JobDefinition<Mail, unknown>
  let bad = null as unknown as JobDefinition<unknown, unknown>
  const t = await bench(database, (forge) => {
    mail = forge.job('mail', { queue: 'post', run: (_input: Mail) => null })
    bad = forge.job('bad', {
      retry: { attempts: 1 },
      run() {
        throw new Error('broken')
      },
    })
  })
  return { t, mail, bad }
}

describe('expectEnqueued', () => {
  it('finds jobs by a part of their input, and gives them, oldest first', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    const at = new Date('2030-01-01T00:00:00Z')
    await mail.enqueue({ to: 'a', lines: [1, 2], meta: { at, deep: { a: 1, b: 2 } } })
    await mail.enqueue({ to: 'b' })
    expect(await t.expectEnqueued(mail)).toMatchObject([{ input: { to: 'a' } }, { input: { to: 'b' } }])
    expect(await t.expectEnqueued('mail', { input: { meta: { deep: { b: 2 } } } })).toHaveLength(1)
    await t.expectEnqueued(mail, { input: { to: 'a', lines: [1, 2], meta: { at } } })
    await t.expectEnqueued(mail, { input: { to: 'b', lines: undefined } })
    await t.expectEnqueued(mail, { input: expect.objectContaining({ lines: expect.any(Array) }), count: 1 })
    await t.expectNotEnqueued(mail, { input: { lines: [1] } })
    await t.expectNotEnqueued(mail, { input: { to: 'c' } })
    await t.expectNotEnqueued('other')
  })

  it('finds them by queue, priority, time, state and number', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    await mail.enqueue({ to: 'now' }, { priority: 'high', queue: 'fast' })
    await mail.enqueue({ to: 'later' }, { delay: '1h' })
    const inAnHour = new Date(Date.now() + 3_600_000)
    const found = async (expected: object): Promise<unknown[]> =>
      (await t.expectEnqueued(mail, expected)).map(({ input }) => (input as Mail).to)
    expect(await found({ queue: 'fast' })).toEqual(['now'])
    expect(await found({ priority: 'high' })).toEqual(['now'])
    expect(await found({ priority: 50 })).toEqual(['later'])
    expect(await found({ state: 'scheduled' })).toEqual(['later'])
    expect(await found({ runAt: { at: inAnHour, within: '30s' } })).toEqual(['later'])
    expect(await found({ runAt: { at: inAnHour, within: '2h' }, count: 2 })).toEqual(['now', 'later'])
    await t.expectNotEnqueued(mail, { runAt: new Date(inAnHour.getTime() + 60_000) })
    await t.drain()
    expect(await found({ state: 'completed', count: 1 })).toEqual(['now'])
    await t.expectEnqueued(mail, { count: 2 })
    await t.expectEnqueued('other', { count: 0 })
  })

  it('looks through more than a page', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    await mail.enqueueMany(Array.from({ length: 450 }, (_, n) => ({ to: String(n) })))
    expect(await t.expectEnqueued(mail, { count: 450 })).toHaveLength(450)
    await t.expectEnqueued(mail, { input: { to: '0' }, count: 1 })
  })

  it('shows what is there instead, the nearest first, and where it differs', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    await mail.enqueue({ to: 'z', lines: [9] })
    await mail.enqueue({ to: 'a', lines: [1] })
    const error = await rejection(
      t.expectEnqueued(mail, { input: { to: 'a', lines: [2] }, priority: 'normal' }),
    )
    expect(error).toBeInstanceOf(AssertionError)
    expect(error).toMatchObject({ code: 'ERR_ASSERTION', operator: 'expectEnqueued' })
    const lines = error.message.replace(/[0-9a-f-]{36}/g, '<id>').split('\n')
    expect(lines).toEqual([
      "Expected a job 'mail' with input { to: 'a', lines: [ 2 ] }, priority 'normal' to be enqueued, and found none.",
      "Jobs 'mail' that are there:",
      "  <id> available, queue post, priority 50, input { to: 'a', lines: [ 1 ] }",
      '      input.lines[0]: expected 2, got 1',
      "  <id> available, queue post, priority 50, input { to: 'z', lines: [ 9 ] }",
      "      input.to: expected 'a', got 'z'",
      '      input.lines[0]: expected 2, got 9',
    ])
    expect(error.stack).toContain('expect.test.ts')
  })

  it('says how many were found, what other jobs are there, or that there is none', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    expect((await rejection(t.expectEnqueued(mail))).message).toContain('No job is there at all')
    await mail.enqueueMany([{ to: 'a' }, { to: 'b' }])
    expect((await rejection(t.expectEnqueued(mail, { count: 3 }))).message).toMatch(
      /^Expected 3 jobs 'mail' to be enqueued, and found 2\./,
    )
    expect((await rejection(t.expectEnqueued('welcome'))).message).toContain('What is there:\n  2 × mail')
    const unwanted = await rejection(t.expectNotEnqueued(mail, { input: { to: 'b' } }))
    expect(unwanted).toMatchObject({ code: 'ERR_ASSERTION' })
    expect(unwanted.message).toMatch(
      /^Expected no job 'mail' with input \{ to: 'b' \} to be enqueued:\n {2}\S+ available/,
    )
  })

  it('cuts what would be too long to read', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    await mail.enqueueMany(Array.from({ length: 15 }, () => ({ to: 'x'.repeat(5_000) })))
    const { message } = await rejection(t.expectEnqueued(mail, { input: { to: 'y' } }))
    expect(message).toContain('… and 5 more')
    expect(message.length).toBeLessThan(8_000)
  })

  it.each<[string, unknown, unknown, string]>([
    ['an unknown condition', 'mail', { inputs: {} }, "Did you mean 'input'?"],
    ['no job', undefined, {}, 'must be a definition'],
    ['a count that is none', 'mail', { count: -1 }, 'Option count'],
    ['a state that is none', 'mail', { state: 'done' }, 'Option state'],
    ['a priority that is none', 'mail', { priority: 'urgent' }, 'Option priority'],
    ['a moment that is none', 'mail', { runAt: 'now' }, 'runAt'],
    ['a nearness that is none', 'mail', { runAt: { at: new Date(), within: 'near' } }, 'runAt.within'],
    ['an unknown part of a moment', 'mail', { runAt: { at: new Date(), with: 1 } }, "Did you mean 'within'?"],
    ['tags that are none', 'mail', { tags: 'a' }, 'Option tags'],
    ['conditions that are none', 'mail', 7, 'What is expected'],
  ])('refuses %s', async (_, ref, expected, said) => {
    const { t } = await setupMail()
    await using _t = t
    expect((await rejection(t.expectEnqueued(ref as never, expected as never))).message).toContain(said)
  })

  it('refuses a count where none is expected', async () => {
    const { t } = await setupMail()
    await using _ = t
    expect(await rejection(t.expectNotEnqueued('mail', { count: 1 } as never))).toMatchObject({
      code: 'FORGE_OPTION_INVALID',
    })
  })
})

describe('waitFor', () => {
  it('waits for a job by id, handle, definition or name', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    const handle = await mail.enqueue({ to: 'a' })
    const waiting = [handle, handle.id, mail, { name: 'mail' }].map((target) =>
      t.waitFor(target, 'completed'),
    )
    await t.drain()
    for (const job of await Promise.all(waiting))
      expect(job).toMatchObject({ id: handle.id, state: 'completed' })
    expect(await t.waitFor(handle, 'completed')).toMatchObject({ name: 'mail' })
  })

  it('gives up in time, and says what it saw', async () => {
    const { t, mail } = await setupMail()
    await using _ = t
    const handle = await mail.enqueue({ to: 'a' }, { delay: '1h' })
    const error = await rejection(t.waitFor(handle, 'completed', { timeout: '50ms' }))
    expect(error).toMatchObject({ code: 'FORGE_TEST_DEADLINE' })
    expect(error.message).toMatch(/did not become 'completed' \(50 ms\); it is 'scheduled' until .*drain\(\)/)
    expect((await rejection(t.waitFor({ name: 'none' }, 'completed', { timeout: 50 }))).message).toContain(
      "A job 'none' did not become",
    )
  })

  it('fails at once when the job has ended in another way, and says why', async () => {
    const { t, bad } = await setupMail()
    await using _ = t
    const handle = await bad.enqueue({})
    await t.drain()
    const error = await rejection(t.waitFor(handle, 'completed'))
    expect(error).toMatchObject({ code: 'ERR_ASSERTION', expected: 'completed', actual: 'discarded' })
    expect(error.message).toContain('Error: broken')
    expect(await t.waitFor(bad, 'discarded')).toMatchObject({ id: handle.id })
  })

  it.each<[string, unknown, unknown, unknown, string]>([
    ['a state that is none', { name: 'mail' }, 'done', {}, 'The state'],
    ['text that is no id', 'mail', 'completed', {}, 'the id or the handle of a job'],
    ['nothing', undefined, 'completed', {}, 'What is waited for'],
    ['an unknown option', { name: 'mail' }, 'completed', { timout: 1 }, "Did you mean 'timeout'?"],
    ['a timeout that is none', { name: 'mail' }, 'completed', { timeout: 'soon' }, 'Option timeout'],
  ])('refuses %s', async (_, target, state, options, said) => {
    const { t } = await setupMail()
    await using _t = t
    const error = await rejection(t.waitFor(target as never, state as never, options as never))
    expect(error.message).toContain(said)
  })
})
