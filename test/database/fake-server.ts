import { createServer, type AddressInfo, type Socket } from 'node:net'

/** One message of PostgreSQL's protocol: type, length, body. */
export function message(type: string, body: Buffer | string): Buffer {
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

export interface FakeServer extends AsyncDisposable {
  readonly port: number
  /** Connections that are open. */
  readonly open: ReadonlySet<Socket>
}

/** Answers the login with `login`, and each query with `answer()`. For servers that behave as none should. */
export async function fakeServer(login: Buffer, answer: () => Buffer): Promise<FakeServer> {
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    let greeted = false
    socket.on('error', () => {})
    socket.on('close', () => open.delete(socket))
    socket.on('data', (bytes) => {
      if (!greeted) socket.write(login)
      else if (bytes.toString('latin1').startsWith('Q')) socket.write(answer())
      greeted = true
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    open,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
