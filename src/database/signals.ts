import { createHash } from 'node:crypto'
import {
  type Clock,
  isConnectionError,
  LocalSignals,
  type Logger,
  messageOf,
  quietLogger,
  randomId,
  type Service,
  type Signals,
  sleep,
} from '../kernel/index.js'
import { decodeHints, encodeHints, HintBag, type Hints } from './hints.js'
import { Listener, type ListenerState, type ListenerTimes } from './listener.js'
import { notify } from './queries.js'
import type { Rider, Session } from './session.js'
import type { ClientSource } from './source.js'
import type { Statement } from './statement.js'

export interface PostgresSignalsOptions {
  readonly source: ClientSource
  /** Sends the notifications; never the listener's own connection. */
  readonly session: Pick<Session, 'run'>
  /** The unquoted schema name; nodes of one schema hear each other. */
  readonly schema: string
  readonly clock: Clock
  readonly logger?: Logger
  readonly times?: ListenerTimes
  readonly onChange?: (state: ListenerState) => void
}

/** What others should hear of a statement. */
export interface HintOf<Row> {
  readonly topic: string
  /** What `key` is going to say, in all likelihood; null: nobody knows. Asked when the statement goes out. */
  readonly guess: () => string | null
  /** The key, by the answer. */
  readonly key: (rows: readonly Row[]) => string
}

const channelBytesMax = 63
/** A burst costs one notification at once and one per window. */
const windowMs = 5
/** While NOTIFY fails, others find the work by polling; trying more often helps nobody. */
const failedPauseMs = 250
const stopMs = 1_000
const logEveryMs = 60_000

/**
 * Hints between the nodes of one schema, by NOTIFY on a connection of forge's own and outside of transactions. Nothing
 * rests on them: when NOTIFY fails, is forged or is swallowed, polling finds the same work a little later.
 */
export class PostgresSignals implements Signals, Service {
  readonly name = 'signals'
  readonly #options: PostgresSignalsOptions & { readonly logger: Logger }
  readonly #channel: string
  readonly #self = randomId()
  readonly #local = new LocalSignals()
  readonly #listener: Listener
  readonly #stopping = new AbortController()
  /** For this process, for the others, and from the others. */
  readonly #here = new HintBag()
  readonly #away = new HintBag()
  readonly #heard = new HintBag()
  #flushing = false
  #delivering = false
  #sending: Promise<void> | null = null
  #failures = 0
  readonly #loggedMs = new Map<string, number>()

  constructor(options: PostgresSignalsOptions) {
    this.#options = { logger: quietLogger, ...options }
    this.#channel = channelOf(options.schema)
    const { source, clock, logger, onChange } = this.#options
    this.#listener = new Listener({
      ...options.times,
      source,
      clock,
      logger,
      channel: this.#channel,
      probe: (payload) => this.#notify(payload),
      onMessage: (payload) => this.#receive(decodeHints(payload, this.#self)),
      onGap: () => this.#receive(null),
      ...(onChange ? { onChange } : {}),
    })
  }

  get proven(): boolean {
    return this.#listener.proven
  }

  get listening(): ListenerState {
    return this.#listener.state
  }

  /** Notifications that could not be sent since the start. */
  get notifyFailures(): number {
    return this.#failures
  }

  hint(topic: string, key: string): void {
    if (!this.#stopping.signal.aborted) this.#away.add(topic, [key])
    this.#hintHere(topic, key)
  }

  #hintHere(topic: string, key: string): void {
    this.#here.add(topic, [key])
    if (this.#flushing) return
    this.#flushing = true
    queueMicrotask(() => this.#flush())
  }

  /**
   * Runs one statement on the session that sends the hints, and hints at its outcome. The guess goes out right behind
   * the statement, so that others hear of it one trip sooner; where it was wrong, or the last hint has just gone out, the
   * hint follows as any other does. A guess about a statement that failed stands: nothing rests on hints.
   * @throws what `Session.run` throws
   */
  async run<Row>(
    statement: Statement<Row>,
    values: readonly unknown[],
    { topic, guess, key }: HintOf<Row>,
  ): Promise<Row[]> {
    let told: string | null = null
    const rider = (): Rider | null => {
      if (this.#sending || this.#stopping.signal.aborted) return null
      told = guess()
      return told === null ? null : this.#rider(topic, told)
    }
    const rows = await this.#options.session.run(statement, values, rider)
    const found = key(rows)
    if (found === told) this.#hintHere(topic, found)
    else this.hint(topic, found)
    return rows
  }

  subscribe(topic: string, listener: (keys: readonly string[] | null) => void): () => void {
    return this.#local.subscribe(topic, (keys) => {
      try {
        listener(keys)
      } catch (error) {
        this.#log('A listener for hints threw', error)
      }
    })
  }

  start(): Promise<void> {
    return this.#listener.start()
  }

  /** What is hinted already still goes out, within the deadline. */
  async stop(deadlineMs = stopMs): Promise<void> {
    this.#stopping.abort()
    if (this.#flushing) this.#flush()
    const late = new AbortController()
    void this.#sending?.then(() => late.abort())
    if (this.#sending) await sleep(this.#options.clock, Math.min(deadlineMs, stopMs), late.signal)
    await this.#listener.stop()
  }

  #flush(): void {
    this.#flushing = false
    this.#deliver(this.#here)
    if (!this.#away.empty) this.#sending ??= this.#send()
  }

  /** One notification at a time: while the database is slow, hints are merged and do not queue up. */
  async #send(riding?: Promise<unknown>): Promise<void> {
    if (riding) await this.#pause(await riding)
    while (!this.#away.empty) await this.#pause(await this.#trySend(this.#away.take()))
    this.#sending = null
  }

  /** Gives what went wrong, or null. */
  #trySend(hints: Hints): Promise<unknown> {
    return this.#notify(encodeHints(this.#self, hints)).then(
      () => null,
      (error: unknown) => error,
    )
  }

  /** Until the next notification may go out. */
  #pause(error: unknown): Promise<void> {
    const { clock } = this.#options
    if (error === null) return sleep(clock, windowMs, this.#stopping.signal)
    this.#failures += 1
    this.#log('NOTIFY failed; other nodes find the work by polling', error)
    return sleep(clock, failedPauseMs, this.#stopping.signal)
  }

  /** The notification of one hint, for the session to send: until it has settled, it is the one under way. */
  #rider(topic: string, key: string): Rider {
    let settled: Rider['settled'] = () => {}
    const riding = new Promise<unknown>((resolve) => {
      settled = (error) => {
        if (error !== null) this.#away.add(topic, [key])
        // The statement in front was lost as well: whether NOTIFY works is for the next connection to tell.
        resolve(isConnectionError(error) ? null : error)
      }
    })
    this.#sending = this.#send(riding)
    const payload = encodeHints(this.#self, new Map([[topic, [key]]]))
    return { statement: notify, values: [this.#channel, payload], settled }
  }

  async #notify(payload: string): Promise<void> {
    await this.#options.session.run(notify, [this.#channel, payload])
  }

  /** A storm of messages costs each topic one delivery per turn of the event loop. */
  #receive(hints: Hints | undefined): void {
    if (hints === undefined) return
    this.#heard.addAll(hints)
    if (this.#delivering) return
    this.#delivering = true
    setImmediate(() => {
      this.#delivering = false
      this.#deliver(this.#heard)
    })
  }

  #deliver(bag: HintBag): void {
    const hints = bag.take()
    if (!hints) this.#local.deliverGap()
    else for (const [topic, keys] of hints) this.#local.deliver(topic, keys)
  }

  #log(message: string, error: unknown): void {
    const { clock, logger } = this.#options
    const nowMs = clock.monotonicMs()
    if (nowMs - (this.#loggedMs.get(message) ?? -Infinity) < logEveryMs) return
    this.#loggedMs.set(message, nowMs)
    logger.warn(`${message}: ${messageOf(error)}`)
  }
}

/** `forge_<schema>`; PostgreSQL takes 63 bytes, as many as the schema alone may have. */
function channelOf(schema: string): string {
  const channel = `forge_${schema}`
  if (channel.length <= channelBytesMax) return channel
  const hash = createHash('sha256').update(schema).digest('hex')
  return `${channel.slice(0, 46)}_${hash.slice(0, 16)}`
}
