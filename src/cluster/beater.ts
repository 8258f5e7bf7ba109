import type { Lead, TermTimes } from './leads.js'

/** Times of the lease and of terms, in milliseconds. */
export interface LeaseTimes extends TermTimes {
  readonly leaseMs: number
  readonly renewMs: number
  readonly trustMs: number
  readonly frozenMs: number
}

/** What one renewal brought. */
export interface Beat {
  /** False: the lease of `epoch` was declared dead. */
  readonly renewed: boolean
  readonly expired: number
  readonly deaths: boolean
  readonly draining: boolean
  readonly tookMs: number
  readonly epoch: string
  /** Which of the roles it asked for this node leads; null: it asked for none. */
  readonly leads: readonly Lead[] | null
  /** Monotonic milliseconds. */
  readonly sentAtMs: number
  /** The clock of the database, in ms since 1970, some time between sending and answer. */
  readonly wallMs: number
}

export interface PulseEvents {
  /** One renewal reached PostgreSQL. */
  beat(seen: Beat): void
  /** It did not, or its connection broke. */
  fault(message: string): void
}

/** What beats: a thread where possible, else the main loop. */
export interface Beater {
  start(epoch: string): void
  changeEpoch(epoch: string): void
  /** Asks for these roles from now on, and at once. */
  campaign(wanted: readonly string[]): void
  /** Gives roles up. Resolves when others may have them, or when PostgreSQL did not answer. */
  resign(roles: readonly string[]): Promise<void>
  /** Goes along with the next renewal, JSON; null: nothing new. */
  report(load: string, serves: string | null): void
  stop(): Promise<void>
}
