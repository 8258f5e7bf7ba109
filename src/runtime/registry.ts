import { DuplicateName } from '../kernel/index.js'
import { isDevelopment } from './environment.js'

/** The definitions of one kind of one forge instance, by name. */
export class Registry<Spec extends { readonly name: string }> {
  readonly #specs = new Map<string, Spec>()
  readonly #listeners = new Set<(spec: Spec) => void>()

  /**
   * A second definition of a name replaces the first in development (hot reload).
   * @throws DuplicateName in production
   */
  add(spec: Spec): void {
    if (this.#specs.has(spec.name) && !isDevelopment()) throw new DuplicateName(spec.name)
    this.#specs.set(spec.name, spec)
    for (const listener of this.#listeners) listener(spec)
  }

  get(name: string): Spec | undefined {
    return this.#specs.get(name)
  }

  all(): readonly Spec[] {
    return [...this.#specs.values()]
  }

  onChange(listener: (spec: Spec) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
