import type { HostPool } from '../database/index.js'
import { attachManual, type Forge, type ManualForge } from '../forge.js'
import type { Job, JobState, Manual, ManualParts } from '../jobs/index.js'
import {
  asRecord,
  type Duration,
  ForgeError,
  invalidOption,
  type Logger,
  sleep,
  systemClock,
  unknownOption,
} from '../kernel/index.js'
import type { ForgeNode } from '../node.js'
import type { AttachOptions } from '../options.js'
import { drain, type DrainOptions, type DrainReport } from './drain.js'
import { type Expected, expectEnqueued, expectNotEnqueued, type JobRef } from './expect.js'
import { Inline } from './inline.js'
import { waitFor, type WaitTarget } from './wait.js'

export interface TestForgeOptions {
  /**
   * 'manual' (default): nothing runs until `drain()`. 'inline': a job runs before `enqueue` returns, with what it
   * enqueues in turn; an error of a handler comes out of that `enqueue`.
   */
  readonly mode?: 'manual' | 'inline'
  /** The PostgreSQL schema, made when it is missing. One per test process keeps them apart. Default 'forge'. */
  readonly schema?: string
  readonly capabilities?: readonly string[]
  /** Default: nothing is logged. */
  readonly logger?: Logger | false
}

/** A forge under test. */
export interface TestForge extends AsyncDisposable {
  readonly mode: 'manual' | 'inline'
  /** The attached node, to look at jobs and to make transactions. */
  readonly node: ForgeNode
  /** Runs everything that is due, one after the other, what is enqueued meanwhile included. See `DrainOptions`. */
  drain(options?: DrainOptions): Promise<DrainReport>
  /** Expects such a job, or exactly `count`; gives those it found, oldest first. Throws an AssertionError. */
  expectEnqueued(job: JobRef, expected?: Expected & { readonly count?: number }): Promise<readonly Job[]>
  /** Expects that there is no such job. Throws an AssertionError. */
  expectNotEnqueued(job: JobRef, expected?: Expected): Promise<void>
  /** Waits until a job is in a state; default timeout 10 s. Throws FORGE_TEST_DEADLINE, or an AssertionError when it ended otherwise. */
  waitFor(target: WaitTarget, state: JobState, options?: { readonly timeout?: Duration }): Promise<Job>
  /** Removes every job and all history of the schema, once running handlers are done. */
  clear(): Promise<void>
  /** Detaches the forge and closes its connections; the pool is yours. */
  stop(): Promise<void>
}

const known = ['mode', 'schema', 'capabilities', 'logger']
const lookMs = 100

/**
 * Attaches `forge` for tests: definitions work as in production, on a real database, and jobs run when the test says so.
 * @throws ForgeError FORGE_TEST_NOT_ALONE when another worker serves the schema; whatever `attach` throws
 */
export async function testForge(
  forge: Forge,
  pool: HostPool,
  options: TestForgeOptions = {},
): Promise<TestForge> {
  const { mode, ...attach } = readOptions(options)
  const inline = mode === 'inline' ? new Inline() : null
  const plain: ManualParts = { around: (_id, call) => call(), front: (engine) => engine }
  const way = (forge as Partial<ManualForge> | null | undefined)?.[attachManual]
  if (typeof way !== 'function') throw invalidOption('The first argument of testForge', 'must be a forge')
  const { node, jobs } = await way(pool, attach, inline ?? plain)
  const manual = jobs.manual as Manual
  inline?.use(manual)
  try {
    await alone(manual, attach.schema ?? 'forge')
  } catch (error) {
    await node.stop()
    throw error
  }
  const parts = { manual, run: (id: string) => (inline ?? manual).run(id), tick: () => jobs.tick() }
  const stop = (): Promise<void> => node.stop({ timeout: '1s' })
  return Object.freeze({
    mode,
    node: inline ? awaitingCommits(node, inline) : node,
    drain: (given: DrainOptions = {}) => drain(parts, given),
    expectEnqueued: (job: JobRef, expected = {}) => expectEnqueued(node.jobs, job, expected),
    expectNotEnqueued: (job: JobRef, expected: Expected = {}) => expectNotEnqueued(node.jobs, job, expected),
    waitFor: (target: WaitTarget, state: JobState, given?: { readonly timeout?: Duration }) =>
      waitFor(node.jobs, target, { state, options: given }),
    clear: () => manual.clear(),
    stop,
    [Symbol.asyncDispose]: stop,
  })
}

/** In place means: a transaction returns when the jobs that it made have run. */
function awaitingCommits(node: ForgeNode, inline: Inline): ForgeNode {
  const transaction: ForgeNode['transaction'] = async (work, how) => {
    const result = await node.transaction(work, how)
    await inline.afterCommits()
    return result
  }
  return Object.freeze({ ...node, transaction })
}

/**
 * Another worker on the schema would take the jobs of the test, now and then. What a killed test run has left behind does
 * not renew its lease: that is waited for until it has run out.
 */
async function alone(manual: Manual, schema: string): Promise<void> {
  const seen = new Map<string, number>()
  for (;;) {
    const others = await manual.others()
    if (others.length === 0) return
    for (const { id, pid, host, seen_at: at } of others) {
      if (at.getTime() > (seen.get(id) ?? Infinity)) {
        const who = `Process ${pid} on ${host}`
        throw new ForgeError('FORGE_TEST_NOT_ALONE', `${who} works on schema '${schema}' of this database.`)
      }
      if (!seen.has(id)) seen.set(id, at.getTime())
    }
    await sleep(systemClock, lookMs)
  }
}

function readOptions(options: unknown): AttachOptions & { mode: 'manual' | 'inline' } {
  const record = asRecord(options, 'The options of testForge()')
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  const { mode = 'manual', ...attach } = record
  if (mode !== 'manual' && mode !== 'inline')
    throw invalidOption('Option mode', "must be 'manual' or 'inline'")
  return { logger: false, ...attach, roles: ['worker'], mode }
}
