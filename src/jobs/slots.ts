import type { QueueOption } from './options.js'

/** Which queues this process serves, and how many more jobs of each it may start now. */
export class Slots {
  readonly #options: ReadonlyMap<string, QueueOption>
  readonly #concurrency: number
  readonly #taken = new Map<string, number>()

  constructor(options: ReadonlyMap<string, QueueOption>, concurrency: number) {
    this.#options = options
    this.#concurrency = concurrency
  }

  serves(queue: string): boolean {
    return this.size(queue) > 0
  }

  free(queue: string): number {
    return Math.max(0, this.size(queue) - (this.#taken.get(queue) ?? 0))
  }

  take(queue: string): void {
    this.#taken.set(queue, (this.#taken.get(queue) ?? 0) + 1)
  }

  release(queue: string): void {
    this.#taken.set(queue, (this.#taken.get(queue) ?? 1) - 1)
  }

  size(queue: string): number {
    const option = this.#options.get(queue) ?? this.#options.get('*')
    if (option === false) return 0
    return option?.concurrency ?? this.#concurrency
  }

  weight(_queue: string): number {
    return 1
  }

  isPaused(_queue: string): boolean {
    return false
  }
}
