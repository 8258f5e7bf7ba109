import type { Membership } from '../cluster/index.js'
import { messageOf } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Catalogue } from './catalogue.js'
import type { KeySweep } from './keys.js'
import type { Admission } from './admit.js'
import type { Retention } from './prune.js'
import { forgetRates } from './queries/limits.js'
import type { StoredQueues } from './queues.js'
import { forgetServed } from './queries/upkeep.js'
import type { Rescue } from './rescue.js'

interface Chore {
  readonly name: string
  readonly everyMs: number
  /** True: one node does it for all. False: each node for itself, since it depends on its definitions and options. */
  readonly shared: boolean
  readonly work: () => Promise<unknown>
}

export interface UpkeepParts {
  readonly runtime: Runtime
  readonly membership: Membership
  readonly retention: Retention
  readonly rescue: Rescue
  readonly keys: KeySweep
  readonly catalogue: Catalogue
  readonly queues: StoredQueues
  readonly admission: Admission
}

const gateChore = { name: 'gates', everyMs: 5_000, shared: true }

/** What is done now and then, with each look: one chore that fails keeps no other from its turn. */
export class Upkeep {
  readonly #parts: UpkeepParts
  readonly #chores: readonly Chore[]
  readonly #nextMs = new Map<string, number>()

  constructor(parts: UpkeepParts) {
    this.#parts = parts
    const { runtime, rescue, retention, membership, keys, catalogue } = parts
    this.#chores = [
      // Also when nobody was seen to die: for jobs of nodes whose rows are gone altogether.
      { name: 'rescue', everyMs: 30_000, shared: true, work: () => rescue.sweep() },
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

  async round(): Promise<void> {
    await this.#gates()
    for (const chore of this.#chores) {
      try {
        if (await this.#isMine(chore)) await chore.work()
      } catch (error) {
        this.#parts.runtime.log.debug(
          `forge: the chore '${chore.name}' waits for its next turn: ${messageOf(error)}`,
        )
      }
    }
  }

  /** What is said of queues is each node's affair; whom to let through is looked after by one, and only if anybody waits. */
  async #gates(): Promise<void> {
    try {
      const { queues, admission } = this.#parts
      if ((await queues.refresh()) && (await this.#isMine(gateChore))) await admission.walk()
    } catch (error) {
      this.#parts.runtime.log.debug(`forge: gates wait for the next look: ${messageOf(error)}`)
    }
  }

  /** Asks the database for the turn only when a whole interval has passed here, so that asking costs next to nothing. */
  async #isMine({ name, everyMs, shared }: Omit<Chore, 'work'>): Promise<boolean> {
    const now = this.#parts.runtime.clock.monotonicMs()
    if ((this.#nextMs.get(name) ?? 0) > now) return false
    this.#nextMs.set(name, now + everyMs)
    return !shared || this.#parts.membership.turn(name, everyMs)
  }
}
