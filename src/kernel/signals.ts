/**
 * Nudges go sideways: the port for hints between nodes. A hint only makes things sooner: losing, repeating, delaying
 * or forging one changes latency and nothing else, because polling finds the same facts in the tables.
 */
export interface Signals {
  /** Tells all nodes, this one included, that `key` of `topic` deserves a look. Never throws, never waits. */
  hint(topic: string, key: string): void
  /** Calls `listener` with the keys that were hinted; `null` means "look at everything" (after a gap). */
  subscribe(topic: string, listener: (keys: readonly string[] | null) => void): () => void
  /** True while hints of other nodes are known to arrive; false means: poll faster. */
  readonly proven: boolean
}

/** Hints inside one process: for tests, and the local half of every implementation. */
export class LocalSignals implements Signals {
  readonly proven: boolean = true
  readonly #listeners = new Map<string, Set<(keys: readonly string[] | null) => void>>()

  hint(topic: string, key: string): void {
    this.deliver(topic, [key])
  }

  subscribe(topic: string, listener: (keys: readonly string[] | null) => void): () => void {
    const set = this.#listeners.get(topic) ?? new Set()
    this.#listeners.set(topic, set)
    set.add(listener)
    return () => set.delete(listener)
  }

  deliver(topic: string, keys: readonly string[] | null): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener(keys)
  }

  /** After a gap nobody knows what was missed. */
  deliverGap(): void {
    for (const topic of this.#listeners.keys()) this.deliver(topic, null)
  }
}
