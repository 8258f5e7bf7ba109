import type { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ClientConfig } from 'pg'
import pgListen, { type Subscriber } from 'pg-listen'
import { type Clock, ForgeError, messageOf, sleep, unlessAborted, within } from '../kernel/index.js'
import type { ClientSource } from './source.js'

export interface LineOptions {
  readonly source: Pick<ClientSource, 'config'>
  readonly clock: Clock
  readonly channel: string
  /** For the connection and its LISTEN together. */
  readonly connectMs: number
  readonly onPayload: (payload: string) => void
}

const goodbyeMs = 1_000

/**
 * One connection that listens to one channel, from connect to its end, on a pg-listen subscriber of its own. It is
 * never repaired: who wants to go on listening opens another. pg-listen's own check has no deadline and its own
 * reconnect gives up, so both are off.
 */
export class Line {
  readonly #options: LineOptions
  readonly #subscriber: Subscriber
  readonly #end = new AbortController()
  #stream: Duplex | undefined
  #open = false
  #fault: unknown

  constructor(options: LineOptions) {
    this.#options = options
    this.#subscriber = pgListen.default(this.#config(), {
      paranoidChecking: false,
      // Its attempts are counted from 1 up to below the limit: none.
      retryLimit: 1,
      parse: (payload) => payload,
    })
    // An unheard 'error' of an emitter ends the process. This one says that the client failed or ended.
    this.#subscriber.events.on('error', () => this.drop())
    this.#subscriber.notifications.on(options.channel, (payload: unknown) => this.#receive(payload))
  }

  /** Aborts as soon as the connection is gone, for whatever reason; the reason is an Error. */
  get ended(): AbortSignal {
    return this.#end.signal
  }

  /**
   * Resolves when the server has confirmed the LISTEN. When it rejects nothing is left of the connection.
   * @throws ForgeError FORGE_DEADLINE, and whatever pg throws
   */
  async open(): Promise<void> {
    const { clock, connectMs } = this.#options
    const late = (): Error => new ForgeError('FORGE_DEADLINE', `The listener: ${connectMs} ms.`)
    try {
      this.ended.throwIfAborted()
      await within(unlessAborted(this.ended, this.#connect()), { clock, ms: connectMs, late })
      this.#open = true
    } catch (error) {
      this.#fault ??= error
      this.drop()
      throw error
    }
  }

  /** A polite goodbye, cut short when the server does not take it within a second. */
  async close(): Promise<void> {
    if (this.#open && !this.ended.aborted) {
      void this.#subscriber.close()
      await sleep(this.#options.clock, goodbyeMs, this.ended)
    }
    this.drop()
  }

  /** Destroys the connection without a word to the server: for one that is stuck or in an unknown state. */
  drop(): void {
    if (this.ended.aborted) return
    // Closed first: otherwise pg-listen begins its own reconnect, and takes its error listeners off the client.
    void this.#subscriber.close()
    this.#stream?.destroy()
    this.#end.abort(this.#fault instanceof Error ? this.#fault : new ForgeError('FORGE_CONNECTION_LOST'))
  }

  async #connect(): Promise<void> {
    await this.#subscriber.connect()
    await this.#subscriber.listenTo(this.#options.channel)
  }

  /** pg-listen passes an empty payload as undefined. */
  #receive(payload: unknown): void {
    if (!this.ended.aborted) this.#options.onPayload(typeof payload === 'string' ? payload : '')
  }

  /** Our socket is handed in, so that a half-open one can be destroyed. */
  #config(): ClientConfig {
    // Without pg's own deadline, which ends before LISTEN is sent.
    const config = this.#options.source.config('forge:listen', 0)
    const make = config.stream ?? ((): Duplex => new Socket())
    // A ready-made stream serves one client, and no pool; there is nothing to adopt.
    if (typeof make !== 'function') return config
    const adopt = (connection: unknown, stream: Duplex | undefined): Duplex | undefined => {
      this.#stream = stream?.once('close', () => this.drop())
      this.#guard(connection)
      return stream
    }
    return {
      ...config,
      // pg calls it as a method of its connection, which nothing else gives access to.
      stream(this: unknown, ...given: Parameters<typeof make>) {
        return adopt(this, make(...given))
      },
    }
  }

  /**
   * pg-listen leaves a failed client with one single-use error listener, so that a third error in one packet would be
   * uncaught and end the process. Everything that the client throws comes through its connection's emit.
   */
  #guard(connection: unknown): void {
    const emitter = connection as Pick<EventEmitter, 'emit'> | undefined
    const emit = emitter?.emit.bind(emitter)
    if (!emitter || !emit) return
    emitter.emit = (event: string, ...values: unknown[]): boolean => {
      if (event === 'error' || event === 'errorMessage') this.#fault ??= asError(values[0])
      try {
        return emit(event, ...values)
      } catch {
        this.drop()
        return true
      }
    }
  }
}

function asError(value: unknown): Error {
  return value instanceof Error ? value : new Error(messageOf(value))
}
