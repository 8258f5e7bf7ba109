import { asRecord, invalidOption, isUuid, messageOf, storableText, unknownOption } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { topics } from './hints.js'
import { readWhole } from './limits.js'
import { checkName } from './names.js'
import { concurrencyMax, type QueueOption } from './options.js'
import {
  listQueues,
  lookAtQueues,
  pauseQueue,
  type QueueRow,
  type QueuesSeen,
  resumeQueue,
  scaleQueue,
  scaleQueueOnNode,
  unscaleQueue,
} from './queries/queues.js'
import type { Slots } from './slots.js'

/** A queue as people and programs look at it. Each kind of job is counted up to 10,000 over all queues. */
export interface Queue {
  readonly name: string
  /** Since when nothing of it is started, who paused it, and why; null while it is not paused. */
  readonly paused: { readonly at: Date; readonly by: string | null; readonly reason: string | null } | null
  /** Jobs that could start now, were there a free place. */
  readonly available: number
  /** Jobs whose time has not come: scheduled and retryable. */
  readonly waiting: number
  /** Jobs that wait for a limit. */
  readonly blocked: number
  readonly running: number
  /** Jobs at once in the process of this node; 0: its options leave the queue to others. */
  readonly concurrency: number
  /** The share of a claim where all queues together want more than one claim takes (1,000 jobs), 1 to 100. */
  readonly weight: number
  /** Jobs at once in the whole cluster; null: no limit. */
  readonly limit: number | null
}

/** `node.queues`: queues of the whole cluster, from any node. Durable; other processes follow within a poll (5 s), mostly at once. */
export interface Queues {
  /** Every queue that has had a job or of which something is said; at most 1,000, by name. */
  list(): Promise<readonly Queue[]>
  /**
   * Starts nothing more of the queue, on any node, until `resume`: no claim that begins after the promise resolved takes
   * a job of it. What runs goes on. The queue need not exist yet. A second pause keeps the moment of the first.
   * @throws ForgeError FORGE_JOB_NAME_INVALID, FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID
   */
  pause(name: string, options?: { readonly by?: string; readonly reason?: string }): Promise<void>
  /** @throws ForgeError FORGE_JOB_NAME_INVALID */
  resume(name: string): Promise<void>
  /**
   * How many jobs of the queue run at once in each process, over its option `queues`; with `node`, in the process of
   * that node alone. 1 to 1,000; null goes back to the options. The last word counts: a limit for all takes away those
   * for single nodes. To stop a queue, pause it. A queue that a process leaves to others stays left to others.
   * @throws ForgeError FORGE_JOB_NAME_INVALID, FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID (also for a node that nobody knows)
   */
  scale(name: string, options: { readonly limit: number | null; readonly node?: string }): Promise<void>
}

const countMax = 10_000

/** The queues of one schema; keeps the slots of this process at what is said of them. */
export class StoredQueues implements Queues {
  readonly #runtime: Runtime
  readonly #slots: Slots
  readonly #options: ReadonlyMap<string, QueueOption>
  #looking: Promise<boolean> | null = null

  constructor(runtime: Runtime, slots: Slots, options: ReadonlyMap<string, QueueOption>) {
    this.#runtime = runtime
    this.#slots = slots
    this.#options = options
  }

  async list(): Promise<readonly Queue[]> {
    await this.refresh()
    const named = [...this.#options.keys()].filter((name) => name !== '*')
    const rows = await this.#runtime.db.reader.run(listQueues, [countMax, named])
    return rows.map((row) => this.#toQueue(row))
  }

  async pause(
    name: string,
    options?: { readonly by?: string | undefined; readonly reason?: string | undefined },
  ): Promise<void> {
    const queue = checkName(name, 'queue')
    const record = readKnown(options, 'pause()', ['by', 'reason'])
    const values = [readText(record.by, 'by', 200), readText(record.reason, 'reason', 1_000)]
    await this.#runtime.db.control.run(pauseQueue, [queue, ...values])
    await this.#changed(queue)
  }

  async resume(name: string): Promise<void> {
    const queue = checkName(name, 'queue')
    await this.#runtime.db.control.run(resumeQueue, [queue])
    await this.#changed(queue)
  }

  async scale(
    name: string,
    options: { readonly limit: number | null; readonly node?: string },
  ): Promise<void> {
    const queue = checkName(name, 'queue')
    const { limit, node } = readKnown(options, 'scale()', ['limit', 'node'])
    if (node !== undefined && !isUuid(node))
      throw invalidOption('Option node of scale()', 'must be the id of a node')
    const { control } = this.#runtime.db
    const size = limit === null ? null : readWhole(limit, 'Option limit of scale()', concurrencyMax)
    if (size === null) await control.run(unscaleQueue, [queue, node ?? null])
    else if (node === undefined) await control.run(scaleQueue, [queue, size])
    else if ((await control.run(scaleQueueOnNode, [queue, node, size])).length === 0)
      throw invalidOption('Option node of scale()', 'names no node of this cluster')
    await this.#changed(queue)
  }

  /** Follows what other nodes say; the look finds it anyway. */
  follow(): () => void {
    const { signals, log } = this.#runtime
    return signals.subscribe(topics.queues, () => {
      this.#refreshAfter().catch((error: unknown) =>
        log.debug(`forge: queues wait for the next look: ${messageOf(error)}`),
      )
    })
  }

  /** Reads what is said of the queues; true when somebody waits at a gate. A call during one joins it. */
  refresh(): Promise<boolean> {
    return (this.#looking ??= this.#look().finally(() => (this.#looking = null)))
  }

  async #look(): Promise<boolean> {
    const [seen] = await this.#runtime.db.control.run(lookAtQueues, [this.#runtime.nodeId])
    return seen ? this.heed(seen) : false
  }

  /**
   * Takes over what was read on the control session, whose answers come in the order of the questions; true when somebody
   * waits at a gate.
   */
  heed({ queues, blocked }: QueuesSeen): boolean {
    this.#slots.apply(new Map(queues.map(({ queue, ...state }) => [queue, state])))
    return blocked
  }

  /** For this process at once. */
  async #changed(queue: string): Promise<void> {
    this.#runtime.signals.hint(topics.queues, queue)
    await this.#refreshAfter()
  }

  /** A look that is under way may have begun before the change. */
  async #refreshAfter(): Promise<void> {
    await this.#looking?.catch(() => {})
    await this.refresh()
  }

  #toQueue(row: QueueRow): Queue {
    const { queue: name, paused_at: at, paused_by: by, paused_reason: reason } = row
    return {
      name,
      paused: at && { at, by, reason },
      available: row.available,
      waiting: row.waiting,
      blocked: row.blocked,
      running: row.running,
      concurrency: this.#slots.size(name),
      weight: this.#slots.weight(name),
      limit: row.limit,
    }
  }
}

function readKnown(value: unknown, what: string, known: readonly string[]): Record<string, unknown> {
  const record = asRecord(value, `The options of ${what}`)
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  return record
}

function readText(value: unknown, name: string, charsMax: number): string | null {
  if (value === undefined) return null
  if (typeof value !== 'string') throw invalidOption(`Option ${name} of pause()`, 'must be text')
  return storableText(value, charsMax)
}
