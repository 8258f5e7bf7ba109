import {
  type Clock,
  codeOf,
  isConnectionError,
  isForgeError,
  type Logger,
  messageOf,
} from '../kernel/index.js'

const quietMs = 3_600_000
/** What the lease has said already, or what passes with the next connection. */
const patienceMs = 300_000

/**
 * Of what is tried again by itself: a failure that passes is for nobody, one that stays is for the person on call. The
 * first is said at debug; from the second on end it is a warning, once an hour. Where it is the connection that fails, it is
 * one after five minutes: that PostgreSQL cannot be reached is said by the room that keeps the lease.
 */
export class Faults {
  readonly #clock: Clock
  readonly #log: Logger
  /** Since when. */
  readonly #failing = new Map<string, number>()
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
    const now = this.#clock.monotonicMs()
    const sinceMs = this.#failing.get(what)
    if (sinceMs === undefined) this.#failing.set(what, now)
    const passes = sinceMs === undefined || (ofConnection(error) && now - sinceMs < patienceMs)
    if (passes || now - (this.#saidMs.get(what) ?? Number.NEGATIVE_INFINITY) < quietMs)
      return this.#log.debug(said)
    this.#saidMs.set(what, now)
    this.#log.warn(`${said}. It keeps failing; this is said once an hour.`, { code: codeOf(error) })
  }
}

const ofConnection = (error: unknown): boolean =>
  isConnectionError(error) || isForgeError(error, 'FORGE_COMMIT_UNKNOWN')
