import { createServer, type Server } from 'node:net'
import { type Cut, type CutOptions, CutOrder } from './proxy-cut.js'
import { ProxiedConnection, type ProxyConnection, type ProxyRules } from './proxy-connection.js'

export interface ProxyOptions {
  /** Where PostgreSQL listens. */
  readonly target: { readonly host: string; readonly port: number }
}

/** A network between a client and PostgreSQL that fails when told to. */
export interface Proxy extends AsyncDisposable {
  /** The proxy listens here on 127.0.0.1, on a port that the system chose. */
  readonly port: number
  /** The same postgres URL, through the proxy. Throws TypeError when it is not a URL. */
  url(databaseUrl: string): string
  /** The connections that are open now, oldest first. */
  connections(): readonly ProxyConnection[]
  /** Sends connections made from now on to another server; those that stand stay where they are. */
  retarget(target: ProxyOptions['target']): void
  /**
   * Resets all connections, and each new one at once until `heal`. The port stays taken meanwhile, so clients see
   * ECONNRESET and not ECONNREFUSED.
   */
  cut(): void
  heal(): void
  /**
   * Half-open: sockets stay open and nothing passes either way, neither bytes nor ends nor resets, until `resume`
   * delivers them. `only` is asked when the hole opens, when a connection arrives and when it has named itself;
   * without it everything is in the hole. The kernel still acknowledges, so only the client's own deadlines notice.
   */
  blackhole(options?: { readonly only?: (connection: ProxyConnection) => boolean }): void
  resume(): void
  /** Delays each direction by this many milliseconds, so a round trip by twice that; 0 ends it. */
  latency(delayMs: number): void
  /** Resets one connection at an exact place of its traffic. */
  cutAfterBytes(options: CutOptions<ProxyConnection>): Cut<ProxyConnection>
  /** Resets what is open and closes the port. May be called again. */
  stop(): Promise<void>
}

/** Starts a proxy in front of PostgreSQL, or of any other TCP server. Rejects when it cannot listen on the loopback. */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const proxy = new TcpProxy(options)
  await proxy.listen()
  return proxy
}

class TcpProxy implements Proxy {
  readonly #server: Server
  readonly #rules: ProxyRules
  readonly #open = new Set<ProxiedConnection>()
  #orders: readonly CutOrder<ProxyConnection>[] = []
  #severed = false
  #count = 0
  #port = 0

  constructor({ target }: ProxyOptions) {
    this.#rules = { target, delayMs: 0, isHeld: () => false }
    this.#server = createServer({ allowHalfOpen: true }, (client) => {
      if (this.#severed) {
        client.on('error', () => undefined).resetAndDestroy()
        return
      }
      this.#count += 1
      const connection = new ProxiedConnection(this.#count, client, this.#rules)
      for (const order of this.#orders) connection.watch(order)
      this.#open.add(connection)
      void connection.closed.then(() => this.#open.delete(connection))
    })
  }

  get port(): number {
    return this.#port
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(0, '127.0.0.1', () => {
        const address = this.#server.address()
        if (address !== null && typeof address === 'object') this.#port = address.port
        resolve()
      })
    })
  }

  url(databaseUrl: string): string {
    const url = new URL(databaseUrl)
    // libpq and node-postgres prefer these parameters to the host of the URL. Only a change rewrites the query.
    for (const name of ['host', 'hostaddr', 'port']) {
      if (url.searchParams.has(name)) url.searchParams.delete(name)
    }
    url.hostname = '127.0.0.1'
    url.port = String(this.#port)
    return url.href
  }

  connections(): readonly ProxyConnection[] {
    return [...this.#open]
  }

  retarget(target: ProxyOptions['target']): void {
    this.#rules.target = target
  }

  cut(): void {
    this.#severed = true
    for (const connection of this.#open) connection.reset()
  }

  heal(): void {
    this.#severed = false
  }

  blackhole({ only = () => true }: Parameters<Proxy['blackhole']>[0] = {}): void {
    this.#judge(only)
  }

  resume(): void {
    this.#judge(() => false)
  }

  latency(delayMs: number): void {
    this.#rules.delayMs = delayMs
    for (const connection of this.#open) connection.setDelay(delayMs)
  }

  cutAfterBytes(options: CutOptions<ProxyConnection>): Cut<ProxyConnection> {
    const order = new CutOrder(options)
    this.#orders = [...this.#orders.filter(({ open }) => open), order]
    for (const connection of this.#open) connection.watch(order)
    return order
  }

  async stop(): Promise<void> {
    this.cut()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await Promise.all([...this.#open].map((connection) => connection.closed))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #judge(isHeld: ProxyRules['isHeld']): void {
    this.#rules.isHeld = isHeld
    for (const connection of this.#open) connection.judge()
  }
}
