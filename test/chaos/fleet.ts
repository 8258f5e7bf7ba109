import { setTimeout as pause } from 'node:timers/promises'
import { type AttachOptions, isForgeError } from '../../src/index.js'
import { type NodeProcess, type Proxy, startProxy } from '../../src/testing/index.js'
import { type NodeOrders, startNode, stopNode } from './nodes.js'

export interface FleetOptions {
  readonly url: string
  readonly size: number
  readonly options: AttachOptions
  /** As of `startNode`. */
  readonly quiet?: boolean
  readonly lead?: string
  readonly ticks?: boolean
}

/** One place in the fleet: its way to PostgreSQL stays the same while processes come and go. */
export interface Member {
  readonly proxy: Proxy
  node: NodeProcess
}

/** Worker processes, each behind a proxy of its own, that can be broken one by one. */
export class Fleet implements AsyncDisposable {
  readonly members: readonly Member[]
  readonly #options: FleetOptions
  readonly #all: NodeProcess[]
  readonly #replacing = new Map<number, Promise<void>>()

  private constructor(options: FleetOptions, members: readonly Member[]) {
    this.#options = options
    this.members = members
    this.#all = members.map(({ node }) => node)
  }

  static async start(given: FleetOptions): Promise<Fleet> {
    const { url, size } = given
    const members = Array.from({ length: size }, async () => {
      const proxy = await startProxy({ target: addressOf(url) })
      return { proxy, node: await startNode(proxy.url(url), ordersOf(given)) }
    })
    return new Fleet(given, await Promise.all(members))
  }

  /** SIGKILL; another process takes the place after `afterMs`, and its start is waited for. Joins one under way. */
  replace(at: number, afterMs: number): Promise<void> {
    const replacing = this.#replacing.get(at) ?? this.#replace(at, afterMs)
    this.#replacing.set(at, replacing)
    return replacing.finally(() => this.#replacing.delete(at))
  }

  async #replace(at: number, afterMs: number): Promise<void> {
    const member = this.members[at] as Member
    member.node.kill('SIGKILL')
    await member.node.exited
    await pause(afterMs)
    member.node = await startPatiently(member.proxy.url(this.#options.url), ordersOf(this.#options))
    this.#all.push(member.node)
  }

  /** The place of the node with this id. */
  async indexOf(id: string): Promise<number> {
    const ready = await Promise.all(
      this.members.map(({ node }) => node.ready() as Promise<{ node?: string }>),
    )
    return ready.findIndex(({ node }) => node === id)
  }

  /** What those that run have said to their stderr: the cause, where one ended by itself. */
  get words(): string {
    return this.members.map(({ node }) => node.stderr).join('\n')
  }

  /** Exit codes of a clean stop of those that run. */
  stop(): Promise<(number | null)[]> {
    return Promise.all(this.members.map(({ node }) => stopNode(node)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((node) => node[Symbol.asyncDispose]()))
    await Promise.all(this.members.map(({ proxy }) => proxy.stop()))
  }
}

function ordersOf({ options, quiet = false, lead, ticks = false }: FleetOptions): NodeOrders {
  return { options, quiet, ticks, ...(lead === undefined ? {} : { lead }) }
}

const startTries = 20

/** As a supervisor would: a fault in the middle of the start ends the process, and another one is started. */
async function startPatiently(url: string, orders: NodeOrders): Promise<NodeProcess> {
  for (let tries = 1; ; tries++) {
    try {
      return await startNode(url, orders)
    } catch (error) {
      if (!isForgeError(error, 'FORGE_TEST_PROCESS_ENDED') || tries === startTries) throw error
    }
  }
}

export function addressOf(url: string): { readonly host: string; readonly port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}
