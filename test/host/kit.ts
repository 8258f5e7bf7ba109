import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import type { Authorize } from '../../src/access/index.js'
import { createRoutes, type Handler, type NodeView, type PageData } from '../../src/host/index.js'
import { silentLogger, systemClock } from '../../src/kernel/index.js'

/** Stands on the page, and nowhere else. */
export const secret = 'secret-of-the-page'

export const page: PageData = {
  node: { id: '0'.repeat(36), version: '1.2.3', roles: ['worker'], running: 1 },
  checks: [{ name: 'lease', ok: true, detail: secret }],
  nodes: [
    {
      id: '1'.repeat(36),
      host: 'host',
      pid: 7,
      state: 'active',
      roles: ['worker'],
      seen: '2030-01-01T00:00:00Z',
    },
  ],
  queues: [{ queue: 'default', available: 1, running: 2, waiting: 3 }],
  counts: [{ state: 'available', count: '1' }],
  failures: [
    {
      id: '2'.repeat(36),
      name: 'job',
      state: 'retryable',
      attempt: '1 of 5',
      message: 'm',
      at: '2030-01-01T00:00:00Z',
    },
  ],
}

export interface Shown {
  readonly authorize?: Authorize
  readonly page?: () => Promise<PageData>
  readonly title?: string
  readonly ready?: boolean
}

/** The routes over a node that is not there. */
export function routes(shown: Shown | null): Handler {
  const view: NodeView = {
    policy: {
      authorize: shown?.authorize ?? (() => 'read'),
      development: false,
      clock: systemClock,
      log: silentLogger,
    },
    title: shown?.title ?? 'forge',
    log: silentLogger,
    ready: () => shown?.ready ?? true,
    page: shown?.page ?? (() => Promise.resolve(page)),
  }
  return createRoutes(() => (shown ? view : null))
}

export interface Raw {
  readonly status: number
  /** Status line and headers. */
  readonly head: string
  readonly body: string
}

export interface Wire extends AsyncDisposable {
  /** Sends these bytes and reads until the server closes. */
  send(bytes: string): Promise<Raw>
  get(target: string, headers?: readonly string[]): Promise<Raw>
}

/** A server, and requests to it that no client library has tidied up. */
export async function listen(server: Server | Parameters<typeof createServer>[1]): Promise<Wire> {
  const listening = typeof server === 'function' ? createServer(server) : (server as Server)
  listening.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  const { port } = listening.address() as AddressInfo
  const send = (bytes: string): Promise<Raw> =>
    new Promise((resolve, reject) => {
      const parts: Buffer[] = []
      const socket = connect(port, '127.0.0.1', () => socket.write(Buffer.from(bytes, 'utf8')))
      socket.on('data', (part) => parts.push(part)).on('error', reject)
      socket.on('close', () => {
        const text = Buffer.concat(parts).toString('utf8')
        const [head = '', ...rest] = text.split('\r\n\r\n')
        resolve({ status: Number(head.split(' ')[1]), head, body: rest.join('\r\n\r\n') })
      })
    })
  return {
    send,
    get: (target, headers = []) =>
      send(
        [`GET ${target} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...headers, '', ''].join('\r\n'),
      ),
    [Symbol.asyncDispose]: async () => {
      listening.close()
      listening.closeAllConnections()
      await once(listening, 'close')
    },
  }
}
