import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Server as SecureServer } from 'node:https'
import { ForgeError, invalidOption } from '../kernel/index.js'

/** What Express 4 and 5, Nest, connect and fastify's middie give a handler. */
export type Next = (error?: unknown) => void
export type Handler = (req: IncomingMessage, res: ServerResponse, next: Next) => void

/** Anything with `use(path, handler)`: an Express app or router, a Nest application, fastify with middie. */
export interface UsableApp {
  use(path: string, handler: Handler): unknown
}

/** Where forge can be mounted; null for a process without HTTP. */
export type HostApp = UsableApp | Server | SecureServer | null

interface Slot {
  handler: Handler
  taken: boolean
}

const slotsKey = Symbol.for('forge.mounts')

/**
 * Mounts synchronously, so that the order of middleware is the host's. One slot per app and path is reused: attaching
 * again after stop adds no layer. Returns what gives the slot up; its handler goes on answering until another takes
 * it, so that the probes and the pages of a stopped node say what they are.
 * @throws ForgeError FORGE_PATH_TAKEN, FORGE_OPTION_INVALID
 */
export function mount(app: HostApp, path: string, handler: Handler): () => void {
  if (app === null) return () => {}
  checkApp(app)
  const slots = slotsOf(app)
  const standing = slots.get(path.toLowerCase())
  if (standing?.taken) throw new ForgeError('FORGE_PATH_TAKEN', `Path ${path}.`)
  const slot = Object.assign(standing ?? {}, { handler, taken: true })
  if (!standing) {
    slots.set(path.toLowerCase(), slot)
    addLayer(app, path, slot)
  }
  return () => {
    if (slot.handler === handler) slot.taken = false
  }
}

function checkApp(app: unknown): void {
  const right = isServer(app) || typeof (app as { use?: unknown } | undefined)?.use === 'function'
  if (!right)
    throw invalidOption(
      'The first argument of attach()',
      'must be an app with use(path, handler), an http.Server, or null',
    )
}

/**
 * Not imported: an import of node:http as an ES module reads its lazy members too, which loads the whole of fetch, some
 * 6 MB that a worker without HTTP has no use for.
 */
function isServer(app: unknown): app is Server | SecureServer {
  const { Server: Plain } = process.getBuiltinModule('node:http')
  return app instanceof Plain || app instanceof process.getBuiltinModule('node:https').Server
}

function slotsOf(app: object): Map<string, Slot> {
  const holder = app as { [slotsKey]?: Map<string, Slot> }
  if (!holder[slotsKey]) Object.defineProperty(app, slotsKey, { value: new Map<string, Slot>() })
  return holder[slotsKey] as Map<string, Slot>
}

function addLayer(app: UsableApp | Server | SecureServer, path: string, slot: Slot): void {
  if (isServer(app)) return takeOver(app, path, slot)
  app.use(path, (req, res, next) => slot.handler(req, res, next))
}

/** A bare server has no `next`: its own request listeners take that place. */
function takeOver(server: Server | SecureServer, path: string, slot: Slot): void {
  const others = server.listeners('request') as ((req: IncomingMessage, res: ServerResponse) => void)[]
  server.removeAllListeners('request')
  const pass = (req: IncomingMessage, res: ServerResponse): void => {
    for (const other of others) other.call(server, req, res)
    // Whoever listens since after the mount answers by itself.
    if (others.length === 0 && server.listenerCount('request') === 1) res.writeHead(404).end()
  }
  server.on('request', (req: IncomingMessage & { originalUrl?: string }, res: ServerResponse) => {
    const url = req.url ?? '/'
    const rest = url.slice(path.length)
    const mine = url.slice(0, path.length).toLowerCase() === path.toLowerCase() && /^($|[/?])/.test(rest)
    if (!mine) return pass(req, res)
    req.originalUrl = url
    req.url = rest.startsWith('/') ? rest : `/${rest}`
    slot.handler(req, res, () => pass(req, res))
  })
}
