import { Socket } from 'node:net'
import { deferred, systemClock } from '../kernel/index.js'
import { type CutOrder, CutWatch, type Direction } from './proxy-cut.js'
import { Flow } from './proxy-flow.js'
import { readOpening, startupBytesMax } from './startup-packet.js'

/** One client connection that runs through the proxy. */
export interface ProxyConnection {
  /** Rises with each connection of the proxy, from 1. */
  readonly id: number
  /** `unknown` until the client has named itself; `opaque` is TLS or another protocol, which stays nameless. */
  readonly kind: 'unknown' | 'session' | 'cancel' | 'opaque'
  /** `application_name` of the startup packet. */
  readonly applicationName: string | undefined
  /** All of the startup packet: `user`, `database`, … Empty until the client has named itself. */
  readonly parameters: Readonly<Record<string, string>>
  /** Bytes passed in each direction. */
  readonly bytesToServer: number
  readonly bytesToClient: number
  /** Settles when both sides are closed. After a cut of direction `toServer` the server has by then done what it was sent. */
  readonly closed: Promise<void>
  /** Resets both sides. */
  reset(): void
}

/** The switches of the proxy, as one connection sees them. */
export interface ProxyRules {
  target: { readonly host: string; readonly port: number }
  delayMs: number
  isHeld: (connection: ProxyConnection) => boolean
}

/** After a cut the server side closes by itself when the server has read to the end; after this it is reset. */
const serverCloseMs = 5_000

export class ProxiedConnection implements ProxyConnection {
  readonly id: number
  readonly closed: Promise<void>
  kind: ProxyConnection['kind'] = 'unknown'
  parameters: Readonly<Record<string, string>> = Object.freeze({})
  readonly #rules: ProxyRules
  readonly #client: Socket
  readonly #server = new Socket({ allowHalfOpen: true })
  readonly #toServer: Flow
  readonly #toClient: Flow
  #watches: readonly CutWatch<ProxyConnection>[] = []
  #opening: Buffer = Buffer.alloc(0)
  #dialled = false
  #held = false
  #broken = false

  constructor(id: number, client: Socket, rules: ProxyRules) {
    this.id = id
    this.#client = client
    this.#rules = rules
    this.#toServer = this.#flow('toServer', client, this.#server)
    this.#toClient = this.#flow('toClient', this.#server, client)
    this.closed = this.#watchSockets()
    this.setDelay(rules.delayMs)
    this.judge()
  }

  get applicationName(): string | undefined {
    return this.parameters['application_name']
  }

  get bytesToServer(): number {
    return this.#toServer.bytes
  }

  get bytesToClient(): number {
    return this.#toClient.bytes
  }

  setDelay(delayMs: number): void {
    this.#toServer.delayMs = delayMs
    this.#toClient.delayMs = delayMs
  }

  watch(order: CutOrder<ProxyConnection>): void {
    this.#watches = [...this.#watches.filter((watch) => watch.order.open), new CutWatch(order, this)]
  }

  /** Asks the rules whether this connection is in the black hole, and follows the answer. */
  judge(): void {
    this.#held = this.#rules.isHeld(this)
    if (!this.#held && this.#broken) return this.reset()
    if (!this.#held) this.#dial()
    this.#toServer.pump()
    this.#toClient.pump()
  }

  reset(): void {
    this.#finish()
    resetSocket(this.#client)
    resetSocket(this.#server)
  }

  #finish(): void {
    this.#toServer.finish()
    this.#toClient.finish()
  }

  #dial(): void {
    if (this.#dialled) return
    this.#dialled = true
    this.#server.connect(this.#rules.target)
  }

  #flow(direction: Direction, source: Socket, sink: Socket): Flow {
    return new Flow(source, sink, {
      arrived: (bytes) => {
        if (direction === 'toServer') this.#identify(bytes)
      },
      held: () => this.#held,
      // A rule may ask for the name, so a client in the black hole is still read until it has given it.
      readsWhileHeld: () => direction === 'toServer' && this.kind === 'unknown',
      leaving: (bytes) => this.#mayLeave(direction, bytes),
    })
  }

  #watchSockets(): Promise<void> {
    const sides = [this.#client, this.#server].map((socket) => {
      const side = deferred<void>()
      socket.setNoDelay(true)
      socket.on('error', () => this.#break())
      socket.on('close', () => side.resolve())
      return side.promise
    })
    return Promise.all(sides).then(() => undefined)
  }

  /** In a black hole not even a reset passes; it is delivered when the hole closes. */
  #break(): void {
    this.#broken = true
    if (!this.#held) this.reset()
  }

  #identify(bytes: Buffer): void {
    if (this.kind !== 'unknown') return
    this.#opening = Buffer.concat([this.#opening, bytes])
    const overlong = this.#opening.length > 2 * startupBytesMax
    const opening = overlong ? ({ kind: 'opaque' } as const) : readOpening(this.#opening)
    if (opening === undefined) return
    this.kind = opening.kind
    if (opening.kind === 'session') this.parameters = opening.parameters
    this.#opening = Buffer.alloc(0)
    this.judge()
  }

  #mayLeave(direction: Direction, bytes: Buffer): boolean {
    for (const watch of this.#watches) {
      const length = watch.offer(direction, bytes)
      if (length === undefined) continue
      this.#cut(watch.order, direction, bytes.subarray(0, length))
      return false
    }
    return true
  }

  /** Lets the last bytes out and ends the connection; the client sees a reset. */
  #cut(order: CutOrder<ProxyConnection>, direction: Direction, last: Buffer): void {
    const flow = direction === 'toServer' ? this.#toServer : this.#toClient
    flow.bytes += last.length
    this.#finish()
    if (order.direction === 'toServer') {
      // The server gets an orderly end: a reset could overtake bytes that it has not read yet.
      this.#server.end(direction === 'toServer' ? last : Buffer.alloc(0))
      resetSocket(this.#client)
      systemClock.timer(serverCloseMs, () => resetSocket(this.#server))
    } else {
      this.#client.write(last, () => this.reset())
    }
    order.fulfil(this)
  }
}

/**
 * While it connects, a socket would put its reset off until it has connected, which may take minutes; while its end is
 * on the way the system refuses the reset, and the socket would never close.
 */
function resetSocket(socket: Socket): void {
  const ending = socket.writableEnded && !socket.writableFinished
  if (socket.connecting || ending) socket.destroy()
  else socket.resetAndDestroy()
}
