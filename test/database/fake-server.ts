import { createServer, type AddressInfo, type Socket } from 'node:net'

/** One message of PostgreSQL's protocol: type, length, body. */
function message(type: string, body: Buffer | string): Buffer {
  const bytes = Buffer.from(body)
  const head = Buffer.alloc(5, type)
  head.writeInt32BE(bytes.length + 4, 1)
  return Buffer.concat([head, bytes])
}

export const loggedIn = Buffer.concat([message('R', Buffer.alloc(4)), message('Z', 'I')])
export const listening = Buffer.concat([message('C', 'LISTEN\0'), message('Z', 'I')])

export function failure(severity: 'FATAL' | 'ERROR', code: string): Buffer {
  return message('E', `S${severity}\0C${code}\0Mas told by the test\0\0`)
}

export function notification(channel: string, payload: string): Buffer {
  return message('A', `\0\0\0\x01${channel}\0${payload}\0`)
}

export interface FakeServer extends AsyncDisposable {
  /** A database URL that leads here. */
  readonly url: string
  /** The first byte of each message that came after the login: Q for a query, X for a goodbye. */
  readonly asked: readonly string[]
  /** Connections that their client has not ended. */
  readonly open: ReadonlySet<Socket>
}

/** Answers the login with `login`, each query with `answer()`, and a goodbye not at all: a server as none should be. */
export async function fakeServer(login: Buffer, answer: () => Buffer): Promise<FakeServer> {
  const sockets = new Set<Socket>()
  const open = new Set<Socket>()
  const asked: string[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket)
    sockets.add(socket)
    let greeted = false
    socket.on('error', () => {})
    socket.on('end', () => open.delete(socket))
    socket.on('close', () => open.delete(socket))
    socket.on('data', (bytes) => {
      const type = greeted ? bytes.toString('latin1', 0, 1) : ''
      if (type) asked.push(type)
      if (type !== 'X') socket.write(greeted ? answer() : login)
      greeted = true
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `postgres://user@127.0.0.1:${(server.address() as AddressInfo).port}/db`,
    open,
    asked,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
