import type { Session } from '../database/index.js'
import { messageOf, type Timer } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Beater, LeaseTimes, PulseEvents } from './beater.js'
import { beat, resign } from './queries.js'

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
  #wanted: readonly string[] = []
  #load: string | null = null
  #serves: string | null = null
  /** Somebody asked while a renewal was under way. */
  #again = false
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

  campaign(wanted: readonly string[]): void {
    this.#wanted = wanted
    this.#again = true
    if (!this.#timer) return
    this.#timer.cancel()
    void this.#round()
  }

  report(load: string, serves: string | null): void {
    this.#load = load
    this.#serves = serves ?? this.#serves
  }

  async resign(roles: readonly string[]): Promise<void> {
    this.#wanted = this.#wanted.filter((each) => !roles.includes(each))
    await this.#session.run(resign, [this.#runtime.nodeId, this.#epoch, roles]).catch(() => {})
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#session.close()
  }

  async #round(): Promise<void> {
    this.#timer = null
    this.#again = false
    const good = await this.#beat()
    const { renewMs, campaignMs } = this.#times
    const usual = this.#wanted.length > 0 ? campaignMs : renewMs
    const ms = good ? (this.#again ? 0 : usual) : Math.min(250, renewMs)
    if (!this.#stopped) this.#timer = this.#runtime.clock.timer(ms, () => void this.#round())
  }

  async #beat(): Promise<boolean> {
    const { clock, nodeId } = this.#runtime
    const sentAt = clock.monotonicMs()
    const epoch = this.#epoch
    const whole = sentAt - this.#contactLast <= 2 * this.#times.renewMs + 250
    const mayExpire = whole && sentAt - this.#contactSince >= this.#times.leaseMs
    try {
      // A session does not tell when its connection breaks: terms alone decide.
      const terms = [this.#wanted, false, this.#times.termMs]
      const values = [nodeId, epoch, this.#times.leaseMs, mayExpire, ...terms, this.#load, this.#serves]
      const sent = [this.#load, this.#serves]
      const [row] = await this.#session.run(beat, values)
      if (!row) return false
      if (this.#load === sent[0]) this.#load = null
      if (this.#serves === sent[1]) this.#serves = null
      if (!whole) this.#contactSince = sentAt
      this.#contactLast = sentAt
      const renewed = row.renewed === 1
      if (renewed && epoch === this.#epoch) this.#events.trusted(sentAt + this.#times.trustMs)
      this.#events.beat({
        ...row,
        renewed,
        tookMs: clock.monotonicMs() - sentAt,
        epoch,
        sentAtMs: sentAt,
        wallMs: row.wall_ms,
      })
      return true
    } catch (error) {
      this.#contactSince = this.#contactLast = Number.NaN
      this.#events.fault(messageOf(error))
      return false
    }
  }
}
