import type { StandardSchemaV1 } from '@standard-schema/spec'
import { expectTypeOf } from 'vitest'
import { z } from 'zod'
import { createForge, type JobContext, type JobHandle, type Tx } from '../../src/index.js'

/* Compiled by `npm run check:types`, never run. */
const forge = createForge()
declare const tx: Tx

export async function aSchemaHasTwoTypes(): Promise<void> {
  const schema = z.object({
    at: z.string().transform((text) => new Date(text)),
    amount: z.coerce.number<string>(),
    note: z.string().default(''),
  })
  const job = forge.job('types.schema', {
    input: schema,
    run(input, context) {
      expectTypeOf(input).toEqualTypeOf<{ at: Date; amount: number; note: string }>()
      expectTypeOf(context).toEqualTypeOf<JobContext>()
      return { paid: input.amount, at: input.at }
    },
  })
  // Enqueue takes what goes into the schema; the handler gets what comes out of it.
  type Input = { at: string; amount: string; note?: string | undefined }
  expectTypeOf(job.enqueue).parameter(0).toEqualTypeOf<Input>()
  expectTypeOf(job.enqueueMany).parameter(0).toEqualTypeOf<readonly Input[]>()
  const handle = await job.enqueue({ at: '2030-01-01', amount: '7' }, { tx })
  expectTypeOf(handle).toEqualTypeOf<JobHandle<{ paid: number; at: string }>>()

  // @ts-expect-error the handler's own type is not what enqueue takes
  await job.enqueue({ at: new Date(), amount: 7 })
  // @ts-expect-error a field is missing
  await job.enqueue({ at: '2030-01-01' })
  // @ts-expect-error a job whose schema wants something is not enqueued with nothing
  await job.enqueue()
}

export async function resultsHaveBeenThroughJson(): Promise<void> {
  const optional: { left?: Date } = {}
  const big: bigint = BigInt(1)
  const job = forge.job('types.result', {
    async run(_: { id: string }) {
      return {
        at: new Date(),
        list: [{ at: new Date(), url: new URL('https://example.org') }] as const,
        maybe: undefined as string | undefined,
        optional,
        big,
        holes: [] as (Date | undefined)[],
        nothing: null,
        literal: 'on' as 'on' | 'off',
        describe: () => 'not data',
      }
    },
  })
  const result = await (await job.enqueue({ id: '1' })).result({ timeout: '30s' })
  expectTypeOf(result.at).toEqualTypeOf<string>()
  expectTypeOf(result.list[0]?.at).toEqualTypeOf<string | undefined>()
  expectTypeOf(result.list[0]?.url).toEqualTypeOf<string | undefined>()
  expectTypeOf(result.maybe).toEqualTypeOf<string | undefined>()
  expectTypeOf(result.optional.left).toEqualTypeOf<string | undefined>()
  expectTypeOf(result.big).toEqualTypeOf<string>()
  expectTypeOf(result.holes).toEqualTypeOf<(string | null)[]>()
  expectTypeOf(result.nothing).toEqualTypeOf<null>()
  expectTypeOf(result.literal).toEqualTypeOf<'on' | 'off'>()
  expectTypeOf(result).not.toHaveProperty('describe')
}

export async function outcomesAreNotResults(): Promise<void> {
  const job = forge.job('types.outcomes', {
    async run(input: { n: number }, context) {
      if (input.n === 1) return context.snooze('5m')
      if (input.n === 2) return context.cancel('no longer wanted')
      if (input.n === 3) return context.discard('cannot ever work')
      return { sent: true }
    },
  })
  expectTypeOf(await (await job.enqueue({ n: 1 })).result()).toEqualTypeOf<{ sent: boolean }>()

  const never = forge.job('types.only.outcomes', { run: (_: string, context) => context.snooze(5_000) })
  expectTypeOf(await (await never.enqueue('x')).result()).toEqualTypeOf<never>()
}

export async function anOutputSchemaGivesTheResultItsType(): Promise<void> {
  const job = forge.job('types.output', {
    output: z.object({ count: z.number(), at: z.date() }),
    run: (_: number) => ({ count: 1, at: new Date(), more: 'is dropped' }),
  })
  expectTypeOf(await (await job.enqueue(1)).result()).toEqualTypeOf<{ count: number; at: string }>()

  const both = forge.job('types.both', {
    input: z.string(),
    output: z.object({ length: z.number() }),
    run: (text) => ({ length: text.length }),
  })
  expectTypeOf(both.enqueue).parameter(0).toEqualTypeOf<string>()
  expectTypeOf(await (await both.enqueue('x')).result()).toEqualTypeOf<{ length: number }>()
}

export async function jobsWithoutInputTakeNone(): Promise<void> {
  const job = forge.job('types.nothing', { run: () => 'done' as const })
  expectTypeOf(await (await job.enqueue()).result()).toEqualTypeOf<'done'>()
  await job.enqueue(undefined, { delay: '1h' })
  const optional = forge.job('types.optional', { run: (n?: number) => n })
  await optional.enqueue()
  await optional.enqueue(7)
  // @ts-expect-error an optional input has a type all the same
  await optional.enqueue('seven')

  const quiet = forge.job('types.void', { async run(_: string) {} })
  expectTypeOf(await (await quiet.enqueue('x')).result()).toEqualTypeOf<null>()
}

export async function anyStandardSchemaWillDo(
  own: StandardSchemaV1<{ raw: string }, { parsed: number }>,
): Promise<void> {
  const job = forge.job('types.standard', { input: own, run: (input) => input.parsed })
  expectTypeOf(job.enqueue).parameter(0).toEqualTypeOf<{ raw: string }>()
  expectTypeOf(await (await job.enqueue({ raw: '7' })).result()).toEqualTypeOf<number>()
  const union = forge.job('types.union', {
    input: z.union([z.object({ kind: z.literal('a'), a: z.number() }), z.object({ kind: z.literal('b') })]),
    run: (input) => (input.kind === 'a' ? input.a : null),
  })
  await union.enqueue({ kind: 'b' })
  // @ts-expect-error each kind has its own fields
  await union.enqueue({ kind: 'a' })
}

export async function handlersEnqueueWithTypes(): Promise<void> {
  const child = forge.job('types.child', { run: (input: { n: number }) => input.n })
  forge.job('types.parent', {
    async run(_: string, context) {
      const handle = await context.enqueue(child, { n: 1 })
      expectTypeOf(handle).toEqualTypeOf<JobHandle<number>>()
      // @ts-expect-error the input of the other job
      await context.enqueue(child, { n: 'one' })
      await context.transaction(async (inner) => {
        await context.complete({ done: true }, { tx: inner })
      })
    },
  })
}

export function settingsAreChecked(): void {
  forge.job('types.settings', {
    queue: 'mail',
    priority: 'high',
    retry: {
      attempts: 3,
      backoff: 'linear',
      base: '1s',
      max: '5m',
      jitter: 0.5,
      when: (error) => error instanceof TypeError,
    },
    timeout: '10m',
    capability: 'media',
    keep: { completed: '7d', discarded: 0 },
    run() {},
  })
  // @ts-expect-error no such setting
  forge.job('types.unknown', { tiemout: '1s', run() {} })
  // @ts-expect-error a duration has a unit
  forge.job('types.duration', { timeout: '10', run() {} })
  // @ts-expect-error a priority has a name or is a number
  forge.job('types.priority', { priority: 'urgent', run() {} })
  // @ts-expect-error a job does something
  forge.job('types.nothing', { queue: 'mail' })
}

export async function aUniqueKeyIsMadeOfTheParsedInput(): Promise<void> {
  const job = forge.job('types.unique', {
    input: z.object({ at: z.string().transform((text) => new Date(text)) }),
    unique: {
      by(input) {
        expectTypeOf(input).toEqualTypeOf<{ at: Date }>()
        return input.at.getTime()
      },
      for: '5m',
      onConflict: 'debounce',
      maxWait: '1h',
    },
    run: () => null,
  })
  const handle = await job.enqueue({ at: '2030-01-01' }, { key: 'k', tags: ['a'], parent: 'id' })
  expectTypeOf(handle.reason).toEqualTypeOf<
    'exists' | 'duplicate' | 'replaced' | 'debounced' | 'running' | undefined
  >()
  // @ts-expect-error a key is text or a number
  forge.job('types.unique.date', { unique: { by: (input: { at: Date }) => input.at }, run: () => null })
}

export function aKeyIsMadeOfTheParsedInput(): void {
  forge.job('types.limits', {
    input: z.object({ user: z.coerce.number<string>() }),
    concurrency: {
      limit: 1,
      by: (input) => (expectTypeOf(input).toEqualTypeOf<{ user: number }>(), input.user),
    },
    rate: { limit: 10, per: '1m', by: (input) => `user ${input.user}` },
    run: () => null,
  })
  const plain = forge.job('types.limits.plain', {
    concurrency: { limit: 1, by: (input: { user: string }) => input.user },
    run: (input: { user: string }) => input.user,
  })
  expectTypeOf(plain.enqueue).parameter(0).toEqualTypeOf<{ user: string }>()
  forge.job('types.limits.without', { concurrency: { limit: 1 }, run: () => null })
  // @ts-expect-error a key is text or a number
  forge.job('types.limits.wrong', { concurrency: { limit: 1, by: () => new Date() }, run: () => null })
  // @ts-expect-error a rate needs its time
  forge.job('types.limits.rate', { rate: { limit: 1 }, run: () => null })
}
