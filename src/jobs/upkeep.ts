import type { Membership } from '../cluster/index.js'
import { messageOf } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Catalogue } from './catalogue.js'
import type { KeySweep } from './keys.js'
import type { Admission } from './admit.js'
import type { Retention } from './prune.js'
import { forgetRates } from './queries/limits.js'
import { forgetServed } from './queries/upkeep.js'
import type { Rescue } from './rescue.js'

interface Chore {
  readonly name: string
  readonly everyMs: number
  /** True: one node does it for all. False: each node for itself, since it depends on its definitions and options. */
  readonly shared: boolean
  readonly work: () => Promise<unknown>
}

/** Let those who wait through their gates: only if anybody waits. */
const gates = 'gates'

export interface UpkeepParts {
  readonly runtime: Runtime
  readonly membership: Membership
  readonly retention: Retention
  readonly rescue: Rescue
  readonly keys: KeySweep
  readonly catalogue: Catalogue
  readonly admission: Admission
}

/**
 * What is done now and then, with each look: one chore that fails keeps no other from its turn. The turns of a round are
 * asked for together, and only when a whole interval has passed here, so that asking costs next to nothing.
 */
export class Upkeep {
  readonly #parts: UpkeepParts
  readonly #chores: readonly Chore[]
  readonly #nextMs = new Map<string, number>()

  constructor(parts: UpkeepParts) {
    this.#parts = parts
    const { runtime, rescue, retention, membership, keys, catalogue, admission } = parts
    this.#chores = [
      { name: gates, everyMs: 5_000, shared: true, work: () => admission.walk() },
      // Also when nobody was seen to die: for jobs of nodes whose rows are gone altogether.
      { name: 'rescue', everyMs: 60_000, shared: true, work: () => rescue.sweep() },
      { name: 'partitions', everyMs: 3_600_000, shared: false, work: () => retention.ensure() },
      { name: 'prune', everyMs: 60_000, shared: true, work: () => retention.prune() },
      { name: 'tally', everyMs: 60_000, shared: true, work: () => retention.fold() },
      { name: 'keys', everyMs: 30_000, shared: true, work: () => keys.round() },
      // What could not be written when it was defined.
      { name: 'catalogue', everyMs: 10_000, shared: false, work: () => catalogue.write() },
      { name: 'rates', everyMs: 60_000, shared: true, work: () => runtime.db.control.run(forgetRates) },
      { name: 'nodes', everyMs: 60_000, shared: true, work: () => membership.forgetDead() },
      { name: 'served', everyMs: 60_000, shared: true, work: () => runtime.db.control.run(forgetServed) },
    ]
  }

  /** `look` comes first and tells whether anybody waits at a gate. */
  async round(look: () => Promise<boolean>): Promise<void> {
    const { membership } = this.#parts
    const anyoneWaits = await this.#attempt('look', look)
    const due = this.#chores.filter((chore) => (chore.name !== gates || anyoneWaits) && this.#isDue(chore))
    const turns = await this.#attempt('turns', () => membership.turns(due.filter(({ shared }) => shared)))
    for (const { name, shared, work } of due) if (!shared || turns?.has(name)) await this.#attempt(name, work)
  }

  #isDue({ name, everyMs }: Chore): boolean {
    const now = this.#parts.runtime.clock.monotonicMs()
    if ((this.#nextMs.get(name) ?? 0) > now) return false
    this.#nextMs.set(name, now + everyMs)
    return true
  }

  async #attempt<T>(name: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      this.#parts.runtime.log.debug(`forge: the chore '${name}' waits for its next turn: ${messageOf(error)}`)
      return undefined
    }
  }
}
