import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { until } from '../support/until.js'

/** What one side of a TCP connection has seen. */
export interface Line {
  readonly socket: Socket
  received(): Buffer
  /** How many bytes. */
  count(): number
  /** How the other side ended, once it has. */
  readonly end: 'open' | 'end' | 'reset'
}

/** A Line that a test speaks on. */
export interface Client extends Line {
  send(data: string | Buffer): void
  /** Waits until everything received is exactly this. */
  hears(text: string): Promise<void>
  ends(how: 'end' | 'reset'): Promise<void>
}

function listen(socket: Socket): Line {
  const chunks: Buffer[] = []
  const line = {
    socket,
    received: () => Buffer.concat(chunks),
    count: () => size,
    end: 'open' as Line['end'],
  }
  let size = 0
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
  })
  socket.on('end', () => (line.end = 'end'))
  socket.on('error', () => (line.end = 'reset'))
  return line
}

export interface EchoServer extends AsyncDisposable {
  readonly port: number
  /** One per connection, in the order of their arrival. */
  readonly lines: readonly Line[]
}

/** Answers each chunk with what `reply` makes of it, by default the chunk itself, and an end with an end. */
export async function startEcho(
  reply: (chunk: Buffer) => Buffer | string = (chunk) => chunk,
): Promise<EchoServer> {
  const lines: Line[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    lines.push(listen(socket))
    socket.on('data', (chunk) => socket.write(reply(chunk)))
    socket.on('end', () => socket.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the echo server has no port')
  return {
    port: address.port,
    lines,
    async [Symbol.asyncDispose]() {
      for (const { socket } of lines) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Connects over the loopback; a reset that comes at once is seen by `ends`. */
export async function dial(port: number): Promise<Client> {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  const line = listen(socket)
  await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve))
  return Object.assign(line, {
    send: (data: string | Buffer) => void socket.write(data),
    hears: async (text: string) => {
      const heard = () => line.received().toString('latin1') === text
      await until(heard, { label: `the client hears ${JSON.stringify(text.slice(0, 200))}` })
    },
    ends: async (how: 'end' | 'reset') => {
      await until(() => line.end === how, { label: `the client sees ${how}` })
    },
  })
}

/** A PostgreSQL StartupMessage, protocol 3.0. */
export function startupMessage(parameters: Readonly<Record<string, string>>): Buffer {
  const pairs = Object.entries(parameters).map(([name, value]) => `${name}\0${value}\0`)
  return request(196_608, Buffer.from(`${pairs.join('')}\0`))
}

/** Length, code, body: the layout of every first packet of a client. */
export function request(code: number, body: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt32BE(8 + body.length, 0)
  header.writeUInt32BE(code, 4)
  return Buffer.concat([header, body])
}
