/** Times of the lease, in milliseconds. */
export interface LeaseTimes {
  readonly leaseMs: number
  readonly renewMs: number
  readonly trustMs: number
  readonly frozenMs: number
}

export interface PulseEvents {
  /** One renewal reached PostgreSQL. `renewed` false: the lease of `epoch` was declared dead. */
  beat(seen: { renewed: boolean; expired: number; deaths: boolean; tookMs: number; epoch: string }): void
  fault(message: string): void
}

/** What beats: a thread where possible, else the main loop. */
export interface Beater {
  start(epoch: string): void
  changeEpoch(epoch: string): void
  stop(): Promise<void>
}
