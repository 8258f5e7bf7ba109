import {
  backoffMs,
  type Clock,
  ForgeError,
  type Logger,
  messageOf,
  quietLogger,
  sleep,
  unlessAborted,
  within,
} from '../kernel/index.js'
import { Line } from './line.js'
import type { ClientSource } from './source.js'

/**
 * `proven`: what is sent on the channel is known to arrive. `connecting`: not known, and being worked on.
 * `deaf`: connections are made and nothing is heard on them. `off`: not started, stopped, or pointless.
 */
export type ListenerState = 'connecting' | 'proven' | 'deaf' | 'off'

export interface ListenerTimes {
  /** From one probe to the next. Default 5,000. */
  readonly probeMs?: number
  /** For a probe to be sent, and then to be heard. Default 5,000. */
  readonly probeDeadlineMs?: number
  /** For a connection and its LISTEN. Default 5,000. */
  readonly connectMs?: number
  /** How long start() waits for the first proof. Default 2,000. */
  readonly startMs?: number
  /** Between attempts while a transaction-mode pooler swallows everything. Default 60,000. */
  readonly deafRetryMs?: number
}

export interface ListenerOptions extends ListenerTimes {
  readonly source: Pick<ClientSource, 'config' | 'pooler'>
  readonly clock: Clock
  readonly logger?: Logger
  readonly channel: string
  /** Sends the payload to the channel from another connection; rejects when that was not possible. */
  readonly probe: (payload: string) => Promise<void>
  /** An untrusted string of at most 7,999 bytes: any role of the database may send anything. */
  readonly onMessage: (payload: string) => void
  /** After each (re)connect: anything may have been missed before. */
  readonly onGap: () => void
  readonly onChange?: (state: ListenerState) => void
}

/** How one connection went: never listened; listened and heard nothing; was heard on, and lost. */
type Ending = 'unreached' | 'silent' | 'lost'

const probePayload = 'forge:probe'
/** At the ceiling 1.2 s to 2 s, so that all nodes listen within seconds after a server is back, and not at once. */
const reconnect = { kind: 'exponential', baseMs: 100, maxMs: 1_600, jitter: 0.25 } as const
const unsentRetryMsMax = 1_000
/** One silent connection may be an accident of that connection; the second is the path. */
const silentForDeaf = 2
const defaults = {
  probeMs: 10_000,
  probeDeadlineMs: 5_000,
  connectMs: 5_000,
  startMs: 2_000,
  deafRetryMs: 60_000,
}

const poolerWarning =
  'LISTEN does not work through a transaction-mode pooler (PgBouncer: pool_mode = transaction), so this node does not ' +
  'hear of new work and polls faster instead. Give forge a direct or session-mode connection to make it react at once.'
const deafWarning =
  'Notifications that this node sends to itself are not heard, so it polls faster instead. Do all its connections ' +
  'reach the same PostgreSQL server, directly or in session mode?'

/**
 * Listens to one channel for as long as it lives, through outages of any length:
 *
 *   connect + LISTEN ─▶ onGap ─▶ probe, heard ─▶ proven ─▶ a probe every 5 s …
 *        ▲                         │ not heard, or connection gone
 *        └── backoff 0.1 s to 2 s ◀┘
 *
 * A probe travels over another connection and the server, so that a half-open socket shows: at defaults 10 s after
 * the last probe that was heard. Whatever arrives is as good as the probe. One that cannot be sent proves nothing; after
 * two of them the proof lapses, and the connection stays.
 */
export class Listener {
  readonly #options: ListenerOptions & Required<ListenerTimes> & { readonly logger: Logger }
  #state: ListenerState = 'off'
  #stopping: AbortController | null = null
  /** Ends the wait of start(). */
  #starting = new AbortController()
  #loop: Promise<void> | null = null
  #line: Line | null = null
  #heard: () => void = () => {}
  #failures = 0
  #silent = 0
  #warned = false

  constructor(options: ListenerOptions) {
    this.#options = { logger: quietLogger, ...defaults, ...options }
  }

  get state(): ListenerState {
    return this.#state
  }

  get proven(): boolean {
    return this.#state === 'proven'
  }

  /** Resolves with the first proof, or after `startMs`; it goes on trying. Never rejects. */
  async start(): Promise<void> {
    const { clock, source, startMs } = this.#options
    if (!this.#loop) {
      if (source.pooler === 'transaction') return this.#warn(poolerWarning)
      this.#stopping = new AbortController()
      this.#starting = new AbortController()
      this.#enter('connecting')
      this.#loop = this.#run(this.#stopping.signal)
    }
    await sleep(clock, startMs, this.#starting.signal)
  }

  async stop(): Promise<void> {
    this.#stopping?.abort()
    this.#starting.abort()
    await this.#line?.close()
    await this.#loop
    this.#loop = null
    this.#enter('off')
  }

  async #run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const ending = await this.#listen(stop)
      if (stop.aborted) return
      this.#failures = ending === 'lost' ? 1 : this.#failures + 1
      if (ending === 'silent') this.#silent += 1
      this.#enter(this.#unproven())
      await sleep(this.#options.clock, this.#pauseMs(), stop)
    }
  }

  /** The life of one connection. */
  async #listen(stop: AbortSignal): Promise<Ending> {
    const { source, clock, channel, connectMs, onGap, logger } = this.#options
    try {
      const onPayload = (payload: string): void => this.#receive(payload)
      this.#line = new Line({ source, clock, channel, connectMs, onPayload })
      await this.#line.open()
      if (stop.aborted) return 'unreached'
      this.#tell(onGap)
      return await this.#watch(this.#line)
    } catch (error) {
      logger.debug('The listener could not connect.', { error: messageOf(error) })
      return 'unreached'
    } finally {
      if (!stop.aborted) this.#line?.drop()
    }
  }

  async #watch(line: Line): Promise<Ending> {
    const { clock, probeMs, logger } = this.#options
    let proven = false
    let unsent = 0
    while (!line.ended.aborted) {
      const answer = await this.#probe(line)
      if (line.ended.aborted) break
      if (answer === 'silent') return proven ? 'lost' : 'silent'
      unsent = answer === 'unsent' ? unsent + 1 : 0
      if (answer === 'heard') {
        proven = true
        this.#proof()
      } else if (unsent > 1) this.#enter(this.#unproven())
      await sleep(clock, unsent > 0 ? Math.min(probeMs, unsentRetryMsMax) : probeMs, line.ended)
    }
    logger.debug('The listener lost its connection.', { error: messageOf(line.ended.reason) })
    return proven ? 'lost' : 'unreached'
  }

  async #probe(line: Line): Promise<'heard' | 'silent' | 'unsent'> {
    const wait = new AbortController()
    const wake = (): void => wait.abort()
    let heard = false
    this.#heard = () => {
      heard = true
      wake()
    }
    line.ended.addEventListener('abort', wake, { once: true })
    const sent = await this.#send(wait.signal)
    if (sent && !heard) await this.#silence(wait.signal)
    line.ended.removeEventListener('abort', wake)
    if (heard) return 'heard'
    return sent ? 'silent' : 'unsent'
  }

  async #send(wait: AbortSignal): Promise<boolean> {
    const { clock, probe, probeDeadlineMs } = this.#options
    const sending = Promise.resolve().then(() => probe(probePayload))
    try {
      const late = (): Error => new ForgeError('FORGE_DEADLINE')
      await within(unlessAborted(wait, sending), { clock, ms: probeDeadlineMs, late })
      return true
    } catch {
      return false
    }
  }

  /** After a blocked event loop the timer is due before the socket is read, where the probe may lie. */
  async #silence(wait: AbortSignal): Promise<void> {
    await sleep(this.#options.clock, this.#options.probeDeadlineMs, wait)
    if (!wait.aborted) await new Promise((resolve) => setImmediate(resolve))
  }

  #receive(payload: string): void {
    this.#heard()
    if (payload !== probePayload) this.#tell(() => this.#options.onMessage(payload))
  }

  #proof(): void {
    this.#failures = 0
    this.#silent = 0
    this.#starting.abort()
    this.#enter('proven')
  }

  #unproven(): ListenerState {
    if (this.#silent < silentForDeaf) return 'connecting'
    this.#warn(this.#options.source.pooler === 'transaction' ? poolerWarning : deafWarning)
    return 'deaf'
  }

  #pauseMs(): number {
    const hopeless = this.#state === 'deaf' && this.#options.source.pooler === 'transaction'
    return hopeless ? this.#options.deafRetryMs : backoffMs(reconnect, this.#failures, Math.random())
  }

  #enter(state: ListenerState): void {
    if (this.#state === state) return
    this.#state = state
    this.#options.logger.info(`The listener is ${state}.`)
    this.#tell(() => this.#options.onChange?.(state))
  }

  #warn(message: string): void {
    if (!this.#warned) this.#options.logger.warn(message)
    this.#warned = true
  }

  /** What others do with the news must not end the listening. */
  #tell(news: () => void): void {
    try {
      news()
    } catch (error) {
      this.#options.logger.error(`Somebody told by the listener threw: ${messageOf(error)}`)
    }
  }
}
