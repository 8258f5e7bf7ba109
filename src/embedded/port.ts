import { createHash } from 'node:crypto'
import { createServer } from 'node:net'
import { ForgeError } from '../kernel/index.js'

/**
 * Below the ranges from which Linux (32768 up) and macOS (49152 up) draw the local ports of outgoing connections:
 * while the server is stopped in an outage test, no client may be given its port, least of all one that connects to it.
 */
const first = 15_000
const count = 17_000
const tries = 200

/** A free port that depends on `key`, so that a checkout keeps its port from run to run; `skip` passes over some. */
export async function freePort(key: string, skip: number): Promise<number> {
  const start = createHash('sha256').update(key).digest().readUInt32BE(0)
  for (let step = skip; step < skip + tries; step++) {
    const port = first + ((start + step) % count)
    if (await isFree(port)) return port
  }
  throw new ForgeError('FORGE_EMBEDDED_FAILED', `None of ${tries} ports tried on 127.0.0.1 is free.`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => probe.close(() => resolve(true)))
  })
}
