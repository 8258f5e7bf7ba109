import { AsyncLocalStorage } from 'node:async_hooks'
import { onCommit, type Tx } from '../database/index.js'
import type { JobEngine, Manual, ManualParts, RunEnd } from '../jobs/index.js'
import { ForgeError, messageOf } from '../kernel/index.js'

/** What one call of the test has set going: the runs that are not done, and what failed. */
interface Root {
  readonly failures: unknown[]
  readonly pending: Set<Promise<void>>
  /** The call is over; what a handler left behind starts a root of its own. */
  ended: boolean
}

interface Chain {
  readonly root: Root
  /** 1 for a job that the test enqueued, 2 for one that its handler enqueued … */
  readonly depth: number
}

/** A job that enqueues itself would go on for ever. */
const depthMax = 20

/**
 * Runs jobs in place. A job enqueued by the test runs before `enqueue` returns, and so does what its handler enqueues,
 * and so on. Inside a handler `enqueue` does what it does in production: it never fails for what the other job did. The
 * failures of a whole chain come out of the call of the test that began it.
 *
 * What is enqueued in a transaction of forge's own runs after its commit. The commit of somebody else's is not seen
 * here: those jobs wait for `drain()`.
 */
export class Inline implements ManualParts {
  readonly #context = new AsyncLocalStorage<Chain>()
  /** The chain of each job that is about to be run: its handler is called elsewhere, by the worker. */
  readonly #chains = new Map<string, Chain>()
  /** Roots that began with a commit: nobody waits for them yet. */
  readonly #committed = new Set<Promise<void>>()
  #manual: Manual | null = null

  use(manual: Manual): void {
    this.#manual = manual
  }

  around(id: string, call: () => unknown): unknown {
    const chain = this.#chains.get(id)
    return chain ? this.#context.run(chain, call) : call()
  }

  front(engine: JobEngine): JobEngine {
    return {
      enqueue: async (name, input, options) => {
        const handle = await engine.enqueue(name, input, options)
        await this.#after([handle.id], options?.tx)
        return handle
      },
      enqueueMany: async (name, inputs, options) => {
        const handles = await engine.enqueueMany(name, inputs, options)
        await this.#after(
          handles.map(({ id }) => id),
          options?.tx,
        )
        return handles
      },
    }
  }

  /** One run for `drain`, which counts by itself: failures of what the handler enqueues are not thrown. */
  async run(id: string): Promise<RunEnd | null> {
    const root = newRoot()
    this.#chains.set(id, { root, depth: 1 })
    try {
      const end = await this.#manual?.run(id)
      await settled(root)
      return end ?? null
    } finally {
      this.#chains.delete(id)
    }
  }

  /** Waits for what commits have set going, and throws what failed in it. */
  async afterCommits(): Promise<void> {
    const results = await Promise.allSettled(this.#committed)
    this.#committed.clear()
    throwAll(results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : [])))
  }

  async #after(ids: readonly string[], tx: Tx | undefined): Promise<void> {
    const chain = this.#context.getStore()
    const inner = chain && !chain.root.ended ? chain : null
    if (tx) {
      onCommit(tx, () => {
        if (inner) void this.#within(ids, inner)
        else this.#committed.add(quiet(this.#begin(ids)))
      })
    } else if (inner) await this.#within(ids, inner)
    else await this.#begin(ids)
  }

  async #begin(ids: readonly string[]): Promise<void> {
    const root = newRoot()
    await this.#perform(ids, { root, depth: 1 })
    await settled(root)
    throwAll(root.failures)
  }

  #within(ids: readonly string[], { root, depth }: Chain): Promise<void> {
    const running = this.#perform(ids, { root, depth: depth + 1 })
    root.pending.add(running)
    return running
  }

  /** Never rejects: what fails is the root's. */
  async #perform(ids: readonly string[], chain: Chain): Promise<void> {
    const { root, depth } = chain
    if (depth > depthMax) {
      root.failures.push(new ForgeError('FORGE_TEST_ENDLESS', `Jobs enqueue jobs ${depthMax} levels deep.`))
      return
    }
    for (const id of ids) {
      this.#chains.set(id, chain)
      try {
        const end = await this.#manual?.run(id)
        if (end?.error !== undefined) root.failures.push(end.error)
      } catch (error) {
        root.failures.push(error)
      } finally {
        this.#chains.delete(id)
      }
    }
  }
}

function newRoot(): Root {
  return { failures: [], pending: new Set(), ended: false }
}

/** Until nothing is left that a handler did not wait for. */
async function settled(root: Root): Promise<void> {
  while (root.pending.size > 0) {
    const running = [...root.pending]
    await Promise.all(running)
    for (const one of running) root.pending.delete(one)
  }
  root.ended = true
}

/** Somebody looks at it later: until then it must not end the process as an unhandled rejection. */
function quiet(promise: Promise<void>): Promise<void> {
  promise.catch(() => {})
  return promise
}

function throwAll(failures: readonly unknown[]): void {
  if (failures.length === 1) throw failures[0]
  if (failures.length > 1) {
    const messages = failures.map(messageOf).join('; ')
    throw new AggregateError(failures, `${failures.length} jobs failed: ${messages}`)
  }
}
