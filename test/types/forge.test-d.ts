import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import express from 'express'
import pg from 'pg'
import { expectTypeOf } from 'vitest'
import {
  type AttachOptions,
  forge,
  ForgeError,
  type ForgeErrorCode,
  type ForgeNode,
  isForgeError,
  type Job,
  type JobState,
  type Logger,
} from '../../src/index.js'

/* Compiled by `npm run check:types`, never run. */
const pool = new pg.Pool()

export async function whatForgeIsMountedOn(): Promise<void> {
  expectTypeOf(await forge.attach(express(), pool)).toEqualTypeOf<ForgeNode>()
  await forge.attach(express.Router(), pool)
  await forge.attach(createHttpServer(), pool)
  await forge.attach(createHttpsServer(), pool)
  await forge.attach(null, pool)
  // @ts-expect-error no app at all is said with null
  await forge.attach(undefined, pool)
  // @ts-expect-error a connection string is no pool
  await forge.attach(null, 'postgres://localhost/shop')
  // @ts-expect-error a client is no pool
  await forge.attach(null, new pg.Client())
}

export async function optionsOfAttach(): Promise<void> {
  const options: AttachOptions = {
    roles: ['gateway', 'worker'],
    schema: 'jobs',
    migrate: 'check',
    capabilities: ['media'],
    logger: false,
    signals: true,
    startTimeout: '1m',
    stopTimeout: 5_000,
    lease: { ms: '10s', renewMs: '3s' },
    concurrency: 5,
    queues: { mail: { concurrency: 2 }, '*': false },
    retention: { completed: '1d' },
    dashboard: { authorize: async (req) => (req.headers.cookie ? 'read' : false), title: 'Shop' },
    path: '/ops',
  }
  await forge.attach(null, pool, options)
  await forge.attach(null, pool, Object.freeze(options))
  expectTypeOf(console).toExtend<Logger>()
  await forge.attach(null, pool, { logger: console })
  // @ts-expect-error no such option
  await forge.attach(null, pool, { concurency: 5 })
  // @ts-expect-error no such role
  await forge.attach(null, pool, { roles: ['wroker'] })
  // @ts-expect-error no such option of the group
  await forge.attach(null, pool, { lease: { renewMS: 1 } })
  // @ts-expect-error a duration has a unit
  await forge.attach(null, pool, { stopTimeout: '20' })
  // @ts-expect-error true is no kind of access
  await forge.attach(null, pool, { dashboard: { authorize: () => true } })
}

export async function theNode(node: ForgeNode): Promise<void> {
  expectTypeOf(node.id).toEqualTypeOf<string>()
  expectTypeOf(
    await node.transaction(async (tx) => (await tx.query('SELECT $1', [1])).rows.length),
  ).toEqualTypeOf<number>()
  expectTypeOf(await node.jobs.get('id')).toEqualTypeOf<Job | null>()
  expectTypeOf((await node.jobs.counts()).running).toEqualTypeOf<number>()
  expectTypeOf((await node.health()).checks[0]?.ok).toEqualTypeOf<boolean | undefined>()
  await node.jobs.retry({ state: ['discarded', 'cancelled'], queue: 'mail', limit: 10 })
  expectTypeOf((await node.jobs.retry(['id'], { dryRun: true })).skipped[0]?.state).toEqualTypeOf<
    JobState | null | undefined
  >()
  await node.jobs.discard({ tag: 'mail', parent: 'id' }, 'no use')
  await node.jobs.reschedule('id', { delay: '5m', priority: 'high' })
  expectTypeOf((await node.jobs.explain('id')).sentence).toEqualTypeOf<string>()
  for await (const { progress } of node.jobs.watch('id', { signal: new AbortController().signal }))
    expectTypeOf(progress?.percent).toEqualTypeOf<number | undefined>()
  // @ts-expect-error an hour has a unit
  await node.jobs.reschedule('id', { delay: '1' })
  await node.stop({ timeout: '5s' })
  await using scoped = node
  expectTypeOf(scoped.stop).returns.resolves.toEqualTypeOf<void>()
  expectTypeOf<'completed'>().toExtend<JobState>()
  // @ts-expect-error no such state
  await node.jobs.list({ state: 'done' })
  // @ts-expect-error no such condition
  await node.jobs.cancel({ sate: 'running' })
  // @ts-expect-error the members of a node are not to be changed
  node.id = 'another'
}

export async function schedulesKnowTheirInput(node: ForgeNode): Promise<void> {
  forge.cron('typed', '0 3 * * *', {
    input: { days: 7 },
    run(tick, job) {
      expectTypeOf(tick.input).toEqualTypeOf<{ days: number }>()
      expectTypeOf(tick.scheduledFor).toEqualTypeOf<Date>()
      expectTypeOf(job.signal).toEqualTypeOf<AbortSignal>()
    },
  })
  const sized = forge.job('sized', { run: (input: { size: number }) => input.size })
  forge.cron(
    'other',
    { every: '15m' },
    { job: sized, input: { size: 1 }, missed: { policy: 'all', limit: 5 } },
  )
  // @ts-expect-error neither run nor job
  forge.cron('neither', '@daily', { timezone: 'UTC' })
  // @ts-expect-error no such policy
  forge.cron('policy', '@daily', { missed: 'some', run: () => {} })
  // @ts-expect-error an hour has a unit
  forge.cron('unit', { every: '1' }, { run: () => {} })
  await node.crons.create('made', { at: new Date() }, { job: 'sized', by: 'ann' })
  // @ts-expect-error what stands in a table has no function
  await node.crons.create('made', '@daily', { run: () => {} })
  expectTypeOf((await node.crons.get('typed'))?.next).toEqualTypeOf<Date | null | undefined>()
  expectTypeOf(await node.crons.preview('typed')).toEqualTypeOf<readonly Date[]>()
}

export function errorsHaveCodes(error: unknown): ForgeErrorCode | null {
  if (error instanceof ForgeError) expectTypeOf(error.code).toEqualTypeOf<ForgeErrorCode>()
  if (!isForgeError(error)) return null
  // @ts-expect-error no such code
  if (error.code === 'FORGE_LEASE_LOOST') return null
  return error.code
}
