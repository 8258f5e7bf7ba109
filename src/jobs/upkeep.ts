import type { Chore } from '../cluster/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Catalogue } from './catalogue.js'
import type { KeySweep } from './keys.js'
import type { Admission } from './admit.js'
import type { Retention } from './prune.js'
import { forgetRates } from './queries/limits.js'
import { forgetServed } from './queries/upkeep.js'
import type { Rescue } from './rescue.js'

export interface UpkeepParts {
  readonly runtime: Runtime
  readonly retention: Retention
  readonly rescue: Rescue
  readonly keys: KeySweep
  readonly catalogue: Catalogue
  readonly admission: Admission
}

/**
 * What is done now and then. Each node does some of it for itself, with its looks: it depends on its definitions, or must
 * need no leader. The rest is done by the maintenance leader, for all.
 */
export class Upkeep {
  readonly #runtime: Runtime
  readonly #own: readonly Chore[]
  readonly #nextMs = new Map<string, number>()
  #anyoneWaits = false
  /** For the maintenance leader. */
  readonly chores: readonly Chore[]

  constructor({ runtime, rescue, retention, keys, catalogue, admission }: UpkeepParts) {
    this.#runtime = runtime
    const { control } = runtime.db
    this.#own = [
      // Also when nobody was seen to die: for jobs of nodes whose rows are gone altogether.
      { name: 'rescue', everyMs: 60_000, work: () => rescue.sweep() },
      { name: 'partitions', everyMs: 3_600_000, work: () => retention.ensure() },
      // What could not be written when it was defined.
      { name: 'catalogue', everyMs: 10_000, work: () => catalogue.write() },
    ]
    this.chores = [
      // Those who wait are let through their gates: only if anybody waits.
      { name: 'gates', everyMs: 5_000, work: async () => this.#anyoneWaits && admission.walk() },
      { name: 'prune', everyMs: 600_000, work: () => retention.prune() },
      { name: 'tally', everyMs: 120_000, work: () => retention.fold() },
      { name: 'keys', everyMs: 60_000, work: () => keys.round() },
      { name: 'rates', everyMs: 300_000, work: () => control.run(forgetRates) },
      { name: 'served', everyMs: 600_000, work: () => control.run(forgetServed) },
    ]
  }

  /** `look` comes first and tells whether anybody waits at a gate. One chore that fails keeps no other from its turn. */
  async round(look: () => Promise<boolean>): Promise<void> {
    this.#anyoneWaits = (await this.#attempt('look', look)) ?? this.#anyoneWaits
    for (const { name, everyMs, work } of this.#own)
      if (this.#isDue(name, everyMs)) await this.#attempt(name, work)
  }

  #isDue(name: string, everyMs: number): boolean {
    const now = this.#runtime.clock.monotonicMs()
    if ((this.#nextMs.get(name) ?? 0) > now) return false
    this.#nextMs.set(name, now + everyMs)
    return true
  }

  #attempt<T>(name: string, work: () => Promise<T>): Promise<T | undefined> {
    return this.#runtime.faults.attempt(`the chore '${name}'`, work)
  }
}
