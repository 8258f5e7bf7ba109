import { isConnectionError, isForgeError } from '../kernel/index.js'
import type { Enqueued } from './insert.js'
import { byKind, type Row } from './rows.js'

interface Waiting {
  readonly row: Row
  resolve(result: Enqueued): void
  reject(error: unknown): void
}

const batchMax = 1_000

/** The first call goes at once; those that come while it is under way travel together in the next statement. */
export class Outbox {
  readonly #write: (rows: readonly Row[]) => Promise<readonly Enqueued[]>
  #waiting: Waiting[] = []
  #sending = false

  constructor(write: (rows: readonly Row[]) => Promise<readonly Enqueued[]>) {
    this.#write = write
  }

  /** Resolves when the job is durable. */
  put(row: Row): Promise<Enqueued> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ row, resolve, reject })
      if (!this.#sending) void this.#send()
    })
  }

  async #send(): Promise<void> {
    this.#sending = true
    while (this.#waiting.length > 0) {
      const batch = this.#waiting
      this.#waiting = batch.length > batchMax ? batch.splice(batchMax) : []
      for (const part of byKind(batch)) await this.#sendBatch(part)
      // Whoever was just answered may call again at once: then those calls travel with the ones that wait.
      if (batch.length > 1 || this.#waiting.length > 0) await new Promise((turn) => setImmediate(turn))
    }
    this.#sending = false
  }

  async #sendBatch(batch: readonly Waiting[]): Promise<void> {
    try {
      const results = await this.#write(batch.map((call) => call.row))
      batch.forEach((call, index) => call.resolve(results[index] as Enqueued))
    } catch (error) {
      // One row that cannot be written must not fail its neighbours.
      const parts = batch.length > 1 ? apart(batch, error) : []
      if (parts.length < 2) for (const call of batch) call.reject(error)
      else for (const part of parts) await this.#sendBatch(part)
    }
  }
}

/** What is tried again by itself after an error: nothing, where each part would meet the same. */
function apart(batch: readonly Waiting[], error: unknown): readonly (readonly Waiting[])[] {
  if (isConnectionError(error) || isForgeError(error, 'FORGE_DISK_FULL')) return []
  if (!isForgeError(error, 'FORGE_LOCK_TIMEOUT')) return batch.map((call) => [call])
  // Those that wait for one key wait together: each by itself would be as long as all.
  const byKey = new Map<string, Waiting[]>()
  for (const call of batch) {
    const key = JSON.stringify([call.row.unique?.scope, call.row.unique?.key ?? call.row.json])
    byKey.set(key, [...(byKey.get(key) ?? []), call])
  }
  return [...byKey.values()]
}
