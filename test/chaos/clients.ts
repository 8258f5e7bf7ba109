import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import { createForge, type ForgeNode } from '../../src/index.js'
import { type Random } from '../testing/random.js'
import type { ChaosInput } from './worker.js'

/** What a client was told about one job. `rolledBack`: it took the job back itself, so it must never run. */
export interface Told {
  readonly id: string
  readonly how: ChaosInput['how']
  readonly fate: 'acked' | 'unknown' | 'rolledBack'
}

/** Bulk enqueues make their own ids: those of an unanswered one are found by what their inputs carry. */
export interface ToldBatch {
  readonly batch: string
  readonly n: number
  readonly acked: boolean
}

const hows = [
  'return',
  'nothing',
  'nothing',
  'transaction',
  'transaction',
  'throw',
  'snooze',
  'progress',
] as const
const inFlightMax = 100

class RolledBack extends Error {}

/** Enqueues in every way there is, and writes down what it was told. Calls that hang hold nobody up. */
export class Clients {
  readonly told: Told[] = []
  readonly batches: ToldBatch[] = []
  readonly #node: ForgeNode
  readonly #jobs
  readonly #random: Random
  readonly #calls = new Set<Promise<void>>()
  #stopping = false
  #loop: Promise<void> | null = null

  private constructor(
    node: ForgeNode,
    parts: { readonly jobs: ReturnType<typeof define>; readonly random: Random },
  ) {
    this.#node = node
    this.#jobs = parts.jobs
    this.#random = parts.random
  }

  static async attach(pool: pg.Pool, random: Random): Promise<Clients> {
    const forge = createForge()
    const jobs = define(forge)
    const node = await forge.attach(null, pool, { roles: ['gateway'], logger: false, startTimeout: '30s' })
    return new Clients(node, { jobs, random })
  }

  start({ everyMs }: { readonly everyMs: number }): void {
    this.#loop = this.#run(everyMs)
  }

  /** Enqueues nothing more and waits for the answers that are due. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#loop
    await Promise.all(this.#calls)
    await this.#node.stop()
  }

  async #run(everyMs: number): Promise<void> {
    while (!this.#stopping) {
      await pause(everyMs)
      if (this.#calls.size >= inFlightMax) continue
      const call = this.#one().finally(() => this.#calls.delete(call))
      this.#calls.add(call)
    }
  }

  #one(): Promise<void> {
    const dice = this.#random.fraction()
    if (dice < 0.4) return this.#single(1)
    if (dice < 0.5) return this.#single(3)
    if (dice < 0.6) return this.#single(1, `key ${this.#random.int(1, 3)}`)
    if (dice < 0.7) return this.#bulk(this.#random.int(2, 20))
    return this.#transaction(this.#random.int(1, 3), dice > 0.88)
  }

  /** Some run for long, and longer for whoever takes them over: so that a zombie wakes up beside its heir. */
  #input(): ChaosInput {
    const how = this.#random.pick(hows)
    if (this.#random.chance(0.9)) return { ms: this.#random.int(0, 40), how }
    return { ms: this.#random.int(200, 1_500), holdMs: 2_500, how }
  }

  /** The same call several times at once: one job. With a key, one that runs while no other of its key does. */
  async #single(times: number, key?: string): Promise<void> {
    const id = randomUUID()
    const input = key === undefined ? this.#input() : { ...this.#input(), ms: this.#random.int(0, 40), key }
    const job = key === undefined ? this.#jobs.work : this.#jobs.alone
    const calls = Array.from({ length: times }, () => job.enqueue(input, { id }))
    const answers = await Promise.allSettled(calls)
    const acked = answers.some(({ status }) => status === 'fulfilled')
    this.told.push({ id, how: input.how, fate: acked ? 'acked' : 'unknown' })
  }

  async #bulk(n: number): Promise<void> {
    const batch = randomUUID()
    const inputs = Array.from({ length: n }, () => ({ ...this.#input(), batch }))
    try {
      const handles = await this.#jobs.work.enqueueMany(inputs)
      handles.forEach(({ id }, at) => this.told.push({ id, how: inputs[at]?.how, fate: 'acked' }))
      this.batches.push({ batch, n, acked: true })
    } catch {
      this.batches.push({ batch, n, acked: false })
    }
  }

  async #transaction(n: number, takesBack: boolean): Promise<void> {
    const jobs = Array.from({ length: n }, () => ({ id: randomUUID(), input: this.#input() }))
    let fate: Told['fate'] = 'acked'
    try {
      await this.#node.transaction(async (tx) => {
        for (const { id, input } of jobs) await this.#jobs.work.enqueue(input, { id, tx })
        if (takesBack) throw new RolledBack()
      })
    } catch (error) {
      fate = error instanceof RolledBack ? 'rolledBack' : 'unknown'
    }
    for (const { id, input } of jobs) this.told.push({ id, how: input.how, fate })
  }
}

function define(forge: ReturnType<typeof createForge>) {
  const shared = { retry: { attempts: 20 }, run: (input: ChaosInput) => input.ms }
  const by = ({ key = '' }: ChaosInput): string => key
  return {
    work: forge.job('chaos', shared),
    alone: forge.job('chaos.alone', { ...shared, concurrency: { limit: 1, by } }),
  }
}
