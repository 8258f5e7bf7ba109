import type { JobRun } from './run.js'

/** So many that were taken may stand before the next; then they are cut off. */
const takenMax = 256

/** Claimed jobs that have not started, by queue, most due first. */
export class Shelf {
  readonly #queues = new Map<string, { runs: JobRun[]; next: number }>()

  count(queue: string): number {
    const row = this.#queues.get(queue)
    return row ? row.runs.length - row.next : 0
  }

  get empty(): boolean {
    for (const { runs, next } of this.#queues.values()) if (next < runs.length) return false
    return true
  }

  put(run: JobRun): void {
    const row = this.#queues.get(run.queue)
    if (row) row.runs.push(run)
    else this.#queues.set(run.queue, { runs: [run], next: 0 })
  }

  /** Before all others of its queue. */
  putFirst(run: JobRun): void {
    const row = this.#queues.get(run.queue)
    this.#queues.set(run.queue, { runs: [run, ...(row ? row.runs.slice(row.next) : [])], next: 0 })
  }

  /** The next to start. */
  take(queue: string): JobRun | undefined {
    const row = this.#queues.get(queue)
    const run = row?.runs[row.next]
    if (!row || !run) return undefined
    row.next += 1
    // What was taken must not be kept by a shelf that is never empty.
    if (row.next === row.runs.length || row.next >= takenMax) {
      row.runs = row.runs.slice(row.next)
      row.next = 0
    }
    return run
  }

  /** Takes away those for which `leaves` says so. */
  remove(leaves: (run: JobRun) => boolean): JobRun[] {
    const gone: JobRun[] = []
    for (const [queue, { runs, next }] of this.#queues) {
      const rest = runs.slice(next)
      const out = rest.filter(leaves)
      if (out.length === 0) continue
      gone.push(...out)
      this.#queues.set(queue, { runs: rest.filter((run) => !out.includes(run)), next: 0 })
    }
    return gone
  }
}
