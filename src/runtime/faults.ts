import { type Clock, codeOf, isConnectionError, type Logger, messageOf } from '../kernel/index.js'

const quietMs = 3_600_000

/**
 * Of what is tried again by itself: a failure that passes is for nobody, one that stays is for the person on call. The
 * first is said at debug; from the second on end it is a warning, once an hour. That PostgreSQL cannot be reached is said
 * by the room that keeps the lease, so all of that is at debug here.
 */
export class Faults {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #failing = new Set<string>()
  readonly #saidMs = new Map<string, number>()

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock
    this.#log = log
  }

  /** Undefined: it failed, and that is noted. `what` reads like "the chore 'prune'". */
  async attempt<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      const result = await work()
      this.passed(what)
      return result
    } catch (error) {
      this.failed(what, error)
      return undefined
    }
  }

  passed(what: string): void {
    this.#failing.delete(what)
  }

  failed(what: string, error: unknown): void {
    const said = `forge: ${what} failed and is tried again: ${messageOf(error)}`
    if (isConnectionError(error)) return this.#log.debug(said)
    const now = this.#clock.monotonicMs()
    const first = !this.#failing.has(what)
    this.#failing.add(what)
    if (first || now - (this.#saidMs.get(what) ?? Number.NEGATIVE_INFINITY) < quietMs)
      return this.#log.debug(said)
    this.#saidMs.set(what, now)
    this.#log.warn(`${said}. It keeps failing; this is said once an hour.`, { code: codeOf(error) })
  }
}
