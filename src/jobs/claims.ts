/**
 * The claims of this process, and how many jobs of each have not durably ended. A claim that is over is removed from its
 * table in passing, by the next trip that hands something in, or the next look.
 */
export class Claims {
  readonly #open = new Map<string, number>()
  readonly #spent = new Set<string>()
  /** Claims of which a job was lost: it may still stand as running, and only the claim's row leads to it. */
  readonly #doubtful = new Set<string>()

  opened(token: string, jobs: number): void {
    if (jobs > 0) this.#open.set(token, jobs)
  }

  /** One of its jobs has durably ended. */
  ended(token: string): void {
    const left = (this.#open.get(token) ?? 0) - 1
    if (left > 0) this.#open.set(token, left)
    else if (this.#open.delete(token) && !this.#doubtful.delete(token)) this.#spent.add(token)
  }

  /** One of its jobs was lost. The row stays: rescue, or the look for strays, removes it when no job stands under it. */
  lost(token: string): void {
    if (this.#open.has(token)) this.#doubtful.add(token)
    this.ended(token)
  }

  knows(token: string): boolean {
    return this.#open.has(token) || this.#spent.has(token)
  }

  get tokens(): string[] {
    return [...this.#open.keys(), ...this.#spent]
  }

  /** Those that are over. What is taken and not removed is to be given back. */
  takeSpent(): string[] {
    const tokens = [...this.#spent]
    this.#spent.clear()
    return tokens
  }

  giveSpent(tokens: readonly string[]): void {
    for (const token of tokens) this.#spent.add(token)
  }

  /** The rest stays in its table: what was not written is taken back by the nodes that live. */
  abandon(): void {
    this.#open.clear()
  }
}
