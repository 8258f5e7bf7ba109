import { type Service, sleep } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Leading, LeaderPost, LeaderWork } from './campaign.js'

/**
 * What one node does at an interval for all. It may be done twice, or late: leadership decides who works, and nothing that
 * must be right depends on it.
 */
export interface Chore {
  readonly name: string
  readonly everyMs: number
  readonly work: () => Promise<unknown>
}

const pauseMsMin = 500

interface Leader {
  lead(role: string, work: LeaderWork): LeaderPost
}

/** Leads role `maintenance` where it can, and does the chores while it does. A chore that fails keeps no other from its turn. */
export class Maintenance implements Service {
  readonly name = 'maintenance'
  readonly #runtime: Runtime
  readonly #cluster: Leader
  readonly #chores: readonly Chore[]
  #post: LeaderPost | null = null

  constructor(runtime: Runtime, cluster: Leader, chores: readonly Chore[]) {
    this.#runtime = runtime
    this.#cluster = cluster
    this.#chores = chores
  }

  start(): Promise<void> {
    const { roles } = this.#runtime.config
    if (roles.includes('worker') || roles.includes('scheduler'))
      this.#post = this.#cluster.lead('maintenance', (leading) => this.#lead(leading))
    return Promise.resolve()
  }

  async stop(): Promise<void> {
    await this.#post?.stop()
  }

  async #lead({ signal }: Pick<Leading, 'signal'>): Promise<void> {
    const { clock } = this.#runtime
    const dueMs = new Map<Chore, number>()
    while (!signal.aborted) {
      for (const chore of this.#chores) {
        if (signal.aborted) return
        if ((dueMs.get(chore) ?? 0) > clock.monotonicMs()) continue
        await this.#runtime.faults.attempt(`the chore '${chore.name}'`, chore.work)
        dueMs.set(chore, clock.monotonicMs() + chore.everyMs)
      }
      const next = Math.min(...dueMs.values()) - clock.monotonicMs()
      await sleep(clock, Math.max(next, pauseMsMin), signal)
    }
  }
}
