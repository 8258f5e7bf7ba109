import type { Session } from '../database/index.js'
import { messageOf, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Beater, LeaseTimes, PulseEvents } from './beater.js'
import { beat } from './queries.js'

/** The session gives up so much after the server should have: together at most one renewal. */
const deadlineSlackMs = 2_000

/**
 * The pulse on the main loop, for hosts where a thread cannot open the connection. It keeps the same rules, but a
 * handler that blocks the loop longer than the lease costs the node its lease; health says so.
 */
export class MainLoopPulse implements Beater {
  readonly #runtime: Runtime
  readonly #times: LeaseTimes
  readonly #events: PulseEvents & { trusted(untilMs: number): void }
  readonly #session: Session
  #epoch = ''
  #timer: Timer | null = null
  #stopped = false
  #contactSince = Number.NaN
  #contactLast = Number.NaN

  constructor(runtime: Runtime, times: LeaseTimes, events: PulseEvents & { trusted(untilMs: number): void }) {
    this.#runtime = runtime
    this.#times = times
    this.#events = events
    this.#session = runtime.db.open('pulse', { statementMs: Math.max(500, times.renewMs - deadlineSlackMs) })
  }

  start(epoch: string): void {
    this.#epoch = epoch
    void this.#round()
  }

  changeEpoch(epoch: string): void {
    this.#epoch = epoch
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#session.close()
  }

  async #round(): Promise<void> {
    const good = await this.#beat()
    const ms = good ? this.#times.renewMs : Math.min(250, this.#times.renewMs)
    if (!this.#stopped) this.#timer = this.#runtime.clock.timer(ms, () => void this.#round())
  }

  async #beat(): Promise<boolean> {
    const { clock, nodeId } = this.#runtime
    const sentAt = clock.monotonicMs()
    const epoch = this.#epoch
    const whole = sentAt - this.#contactLast <= 2 * this.#times.renewMs + 250
    const mayExpire = whole && sentAt - this.#contactSince >= this.#times.leaseMs
    try {
      const [row] = await this.#session.run(beat, [nodeId, epoch, this.#times.leaseMs, mayExpire])
      if (!row) return false
      if (!whole) this.#contactSince = sentAt
      this.#contactLast = sentAt
      const renewed = row.renewed === 1
      if (renewed && epoch === this.#epoch) this.#events.trusted(sentAt + this.#times.trustMs)
      this.#events.beat({ ...row, renewed, tookMs: clock.monotonicMs() - sentAt, epoch })
      return true
    } catch (error) {
      this.#contactSince = this.#contactLast = Number.NaN
      this.#events.fault(messageOf(error))
      return false
    }
  }
}
