import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { fromDebian } from './debian.js'
import { addressOf } from './fleet.js'

let made = 0

/** Where `ip` is and may make namespaces; null, with a word about what is skipped, where it may not. */
export function findIp(): string | null {
  const ip = fromDebian('iproute2', ['/usr/sbin/ip', '/sbin/ip', '/bin/ip'])
  if (!ip) return null
  const name = `forge-${process.pid}-probe`
  const may = spawnSync(ip, ['netns', 'add', name]).status === 0
  if (may) spawnSync(ip, ['netns', 'delete', name])
  else process.stderr.write('No right to make network namespaces: their tests are SKIPPED.\n')
  return may ? ip : null
}

/**
 * A network of its own for one process, with a single wire to this machine and a way to PostgreSQL over it. When the wire
 * is cut, nothing tells either side: no reset, no end, no acknowledgement.
 */
export class Namespace implements AsyncDisposable {
  readonly #ip: string
  readonly #name: string
  readonly #wire: string
  readonly #relay: Server
  readonly #sockets = new Set<Socket>()
  readonly #url: string

  private constructor(ip: string, parts: { name: string; wire: string; relay: Server; url: string }) {
    this.#ip = ip
    this.#name = parts.name
    this.#wire = parts.wire
    this.#relay = parts.relay
    this.#url = parts.url
  }

  /** `url`: of the server, which may listen on the loopback alone. */
  static async make(ip: string, url: string): Promise<Namespace> {
    made += 1
    const name = `forge-${process.pid}-${made}`
    // Names of interfaces have 15 characters at most.
    const wire = `fg${process.pid}-${made}`
    const net = `10.${100 + (process.pid % 100)}.${made % 250}`
    const relay = createServer()
    const run = runner(ip)
    run('netns', 'add', name)
    run('link', 'add', wire, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
    run('address', 'add', `${net}.1/30`, 'dev', wire)
    run('link', 'set', wire, 'up')
    run('-n', name, 'address', 'add', `${net}.2/30`, 'dev', 'eth0')
    for (const each of ['lo', 'eth0']) run('-n', name, 'link', 'set', each, 'up')
    relay.listen(0, `${net}.1`)
    await once(relay, 'listening')
    const within = new URL(url)
    within.host = `${net}.1:${(relay.address() as AddressInfo).port}`
    const namespace = new Namespace(ip, { name, wire, relay, url: within.href })
    relay.on('connection', (client) => namespace.#pass(client, addressOf(url)))
    return namespace
  }

  /** The server as a process inside sees it. */
  get url(): string {
    return this.#url
  }

  /** What starts a program inside. */
  get command(): readonly string[] {
    return [this.#ip, 'netns', 'exec', this.#name]
  }

  cut(): void {
    runner(this.#ip)('link', 'set', this.#wire, 'down')
  }

  heal(): void {
    runner(this.#ip)('link', 'set', this.#wire, 'up')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    const closed = new Promise<void>((resolve) => this.#relay.close(() => resolve()))
    // The wire goes with it.
    spawnSync(this.#ip, ['netns', 'delete', this.#name])
    await closed
  }

  #pass(client: Socket, target: { readonly host: string; readonly port: number }): void {
    const server = connect(target.port, target.host)
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(one)
      one.on('error', () => other.destroy())
      one.on('close', () => this.#sockets.delete(one) && other.destroy())
      one.pipe(other)
    }
  }
}

function runner(ip: string): (...args: string[]) => void {
  return (...args) => {
    const { status, stderr } = spawnSync(ip, args)
    if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${String(stderr).trim()}`)
  }
}
