import { deferred } from '../kernel/index.js'
import { type Deadline, deadlineMsDefault, withDeadline } from './deadline.js'

export type Direction = 'toServer' | 'toClient'

/** Where `cutAfterBytes` resets a connection. */
export interface CutOptions<Connection> {
  readonly direction: Direction
  /**
   * Bytes of that direction that still pass after the match; without `match`, after this call. Default 0. Towards the
   * client a reset discards what the kernels still hold, so beyond some 64 kB in flight fewer may arrive.
   */
  readonly bytes?: number
  /**
   * The bytes to wait for, found across packets, compared exactly.
   * With direction `toServer` and no `bytes`, all that the client sends goes through until the server begins to answer;
   * that answer is swallowed. So the server did run the statement and the client cannot know. With `bytes: 0` the cut
   * falls inside the statement, so the server does not run it and the client cannot know either.
   */
  readonly match?: Buffer | string
  /** Which connections to watch. Default: all, those that come later too. */
  readonly only?: (connection: Connection) => boolean
}

/** A cut that has been ordered. It happens once, on the first connection that gets there. */
export interface Cut<Connection> {
  /** The connection that was reset. Throws FORGE_TEST_DEADLINE; the cut stays ordered. */
  happened(deadline?: Deadline): Promise<Connection>
  /** Takes the order back; one that has happened stays as it is. */
  cancel(): void
}

/** The order itself, shared by all connections of a proxy. */
export class CutOrder<Connection> implements Cut<Connection> {
  readonly direction: Direction
  readonly bytes: number | undefined
  readonly match: Buffer | undefined
  readonly #only: (connection: Connection) => boolean
  readonly #happened = deferred<Connection>()
  #open = true

  constructor(options: CutOptions<Connection>) {
    this.direction = options.direction
    this.match = options.match === undefined ? undefined : Buffer.from(options.match)
    this.bytes = options.bytes
    this.#only = options.only ?? (() => true)
  }

  /** False once it has happened or was cancelled. */
  get open(): boolean {
    return this.#open
  }

  concerns(connection: Connection): boolean {
    return this.#open && this.#only(connection)
  }

  fulfil(connection: Connection): void {
    this.#open = false
    this.#happened.resolve(connection)
  }

  cancel(): void {
    this.#open = false
  }

  happened({ deadlineMs = deadlineMsDefault }: Deadline = {}): Promise<Connection> {
    return withDeadline(this.#happened.promise, deadlineMs, () => {
      const awaited =
        this.match === undefined ? `${this.bytes ?? 0} bytes` : JSON.stringify(String(this.match))
      return `no connection was cut: none sent ${awaited} ${this.direction}`
    })
  }
}

/** How one connection stands towards one order. */
export class CutWatch<Connection> {
  readonly order: CutOrder<Connection>
  readonly #connection: Connection
  #tail = Buffer.alloc(0)
  #phase: 'matching' | 'counting' | 'awaitingAnswer'
  #bytesLeft: number

  constructor(order: CutOrder<Connection>, connection: Connection) {
    this.order = order
    this.#connection = connection
    this.#phase = order.match === undefined ? 'counting' : 'matching'
    this.#bytesLeft = order.bytes ?? 0
  }

  /** Shows what is about to pass. The answer is how many of these bytes may pass before the cut; `undefined` is no cut. */
  offer(direction: Direction, bytes: Buffer): number | undefined {
    if (!this.order.concerns(this.#connection)) return undefined
    if (this.#phase === 'awaitingAnswer') return direction === 'toClient' ? 0 : undefined
    if (direction !== this.order.direction) return undefined

    const start = this.#phase === 'matching' ? this.#afterMatch(bytes) : 0
    if (start === undefined) return undefined
    if (this.#phase === 'matching' && this.order.bytes === undefined && direction === 'toServer') {
      this.#phase = 'awaitingAnswer'
      return undefined
    }
    this.#phase = 'counting'
    return this.#count(start, bytes.length)
  }

  #count(start: number, end: number): number | undefined {
    if (end - start >= this.#bytesLeft) return start + this.#bytesLeft
    this.#bytesLeft -= end - start
    return undefined
  }

  /** Index behind the match, which may have begun in earlier packets. */
  #afterMatch(bytes: Buffer): number | undefined {
    const match = this.order.match ?? Buffer.alloc(0)
    const joined = Buffer.concat([this.#tail, bytes])
    const found = joined.indexOf(match)
    if (found >= 0) return found + match.length - this.#tail.length
    this.#tail = joined.subarray(Math.max(0, joined.length - match.length + 1))
    return undefined
  }
}
