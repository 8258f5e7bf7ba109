import type { JobRun } from './run.js'

/**
 * The jobs that are here. An array, in which the last takes the place of one that leaves: a Map through which so many
 * pass grows new tables all the time, and each old one keeps what it held alive until a full collection.
 */
export class Roster {
  readonly #runs: JobRun[] = []

  get size(): number {
    return this.#runs.length
  }

  /** As they are now: whoever goes through them may remove some. */
  all(): JobRun[] {
    return this.#runs.slice()
  }

  /** Those of these ids. */
  find(ids: Iterable<string>): JobRun[] {
    const wanted = new Set(ids)
    return this.#runs.filter(({ id }) => wanted.has(id))
  }

  add(run: JobRun): void {
    run.place = this.#runs.push(run) - 1
  }

  /** Nothing happens when it is not here. */
  remove(run: JobRun): void {
    if (this.#runs[run.place] !== run) return
    const last = this.#runs.pop() as JobRun
    if (last === run) return
    last.place = run.place
    this.#runs[run.place] = last
  }
}
