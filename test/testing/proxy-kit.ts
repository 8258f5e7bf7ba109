import { expect } from 'vitest'
import { startProxy } from '../../src/testing/index.js'
import { until } from '../support/until.js'
import { type Client, dial, type EchoServer, startEcho, startupMessage } from './tcp.js'

/** An echo server with a proxy before it. */
export async function setup(reply?: Parameters<typeof startEcho>[0]) {
  const server = await startEcho(reply)
  const proxy = await startProxy({ target: { host: '127.0.0.1', port: server.port } })
  const disposeAll = async () => {
    await proxy.stop()
    await server[Symbol.asyncDispose]()
  }
  return { server, proxy, dial: () => dial(proxy.port), [Symbol.asyncDispose]: disposeAll }
}

/** A client that has named itself; the echo of its startup packet is part of what it hears. */
export async function dialAs(port: number, name: string) {
  const startup = startupMessage({ user: 'u', application_name: name })
  const client = await dial(port)
  client.send(startup)
  return Object.assign(client, { hello: startup.toString('latin1') })
}

/** More than the buffers of both kernels and of the proxy can hold. */
export const muchData = Buffer.alloc(48 * 1024 * 1024, 'x')

/** Sends much; when as much has passed on another connection, the most of it still has to be with the sender. */
export async function expectBacklog(
  kit: Pick<Awaited<ReturnType<typeof setup>>, 'dial'>,
  sender: Client,
): Promise<void> {
  const witness = await kit.dial()
  sender.send(muchData)
  witness.send(muchData)
  await until(() => witness.count() >= muchData.length, { label: 'the witness has it all' })
  expect(sender.socket.writableLength).toBeGreaterThan(0)
}

export const serverHeard = (server: EchoServer, text: string) =>
  until(() => server.lines.some((line) => line.received().includes(text)), {
    label: `the server hears ${text}`,
  })
