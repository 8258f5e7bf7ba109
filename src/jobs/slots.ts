import type { QueueOption } from './options.js'

/** What the tables say of one queue, as far as this process is concerned. */
export interface QueueState {
  readonly paused: boolean
  /** Jobs at once in this process, over its options; null: the options count. */
  readonly scale: number | null
  /** Jobs at once in the whole cluster; null: no limit. */
  readonly limit: number | null
}

const plain: QueueState = { paused: false, scale: null, limit: null }

/** Which queues this process serves, how many more jobs of each it may start now, and what their shares are. */
export class Slots {
  readonly #options: ReadonlyMap<string, QueueOption>
  readonly #concurrency: number
  readonly #taken = new Map<string, number>()
  readonly #listeners = new Set<(queues: readonly string[]) => void>()
  #states: ReadonlyMap<string, QueueState> = new Map()

  constructor(options: ReadonlyMap<string, QueueOption>, concurrency: number) {
    this.#options = options
    this.#concurrency = concurrency
  }

  /** False for queues that the options leave to other processes. A paused queue is served, and gets nothing. */
  serves(queue: string): boolean {
    return this.#option(queue) !== false
  }

  /** How many more of its jobs may start here now; 0 while it is paused. */
  free(queue: string): number {
    if (this.isPaused(queue)) return 0
    return Math.max(0, this.size(queue) - (this.#taken.get(queue) ?? 0))
  }

  /** How many of its jobs may run here at once: the scale, else its option, else option `concurrency`. */
  size(queue: string): number {
    const option = this.#option(queue)
    if (option === false) return 0
    return this.#state(queue).scale ?? option?.concurrency ?? this.#concurrency
  }

  /** Of all these queues. */
  sizeOf(queues: Iterable<string>): number {
    let sum = 0
    for (const queue of new Set(queues)) sum += this.size(queue)
    return sum
  }

  /** Its share of a claim that is full, 1 to 100. */
  weight(queue: string): number {
    const option = this.#option(queue)
    return option === undefined || option === false ? 1 : option.weight
  }

  isPaused(queue: string): boolean {
    return this.#state(queue).paused
  }

  /** The queue has a limit in the whole cluster, as far as this process knows. */
  isLimited(queue: string): boolean {
    return this.#state(queue).limit !== null
  }

  take(queue: string): void {
    this.#taken.set(queue, (this.#taken.get(queue) ?? 0) + 1)
  }

  release(queue: string): void {
    this.#taken.set(queue, (this.#taken.get(queue) ?? 1) - 1)
  }

  /** Takes over what the tables say; queues that are not among them have nothing said of them. */
  apply(states: ReadonlyMap<string, QueueState>): void {
    const before = this.#states
    this.#states = states
    const names = new Set([...before.keys(), ...states.keys()])
    const changed = [...names].filter((queue) => !same(before.get(queue) ?? plain, this.#state(queue)))
    if (changed.length > 0) for (const listener of this.#listeners) listener(changed)
  }

  /** Calls `listener` with the queues of which something changed: paused, resumed, scaled, limited. */
  onChange(listener: (queues: readonly string[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #state(queue: string): QueueState {
    return this.#states.get(queue) ?? plain
  }

  #option(queue: string): QueueOption | undefined {
    return this.#options.get(queue) ?? this.#options.get('*')
  }
}

function same(a: QueueState, b: QueueState): boolean {
  return a.paused === b.paused && a.scale === b.scale && a.limit === b.limit
}
