import type { IncomingMessage, ServerResponse } from 'node:http'
import { decide, type Policy } from '../access/index.js'
import { type Logger, messageOf } from '../kernel/index.js'
import type { Handler } from './mount.js'
import { type PageData, statusCss, statusPage } from './status-page.js'

/** What the routes ask of a node that runs. */
export interface NodeView {
  readonly policy: Policy
  readonly title: string
  readonly log: Logger
  ready(): boolean
  page(): Promise<PageData>
}

const csp = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "font-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ')

const headers = {
  'content-security-policy': csp,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}

/**
 * The routes under the mount: probes without a policy, which say only ok or not, and pages under the policy. The
 * policy is asked in here, on every request, before the route is looked at: a mount can be reached under spellings
 * (`/FORGE`, `//forge`) that a rule of the host or of a proxy does not match. `running` is null while the node
 * starts, after a failed start, and after stop.
 */
export function createRoutes(running: () => NodeView | null): Handler {
  return (req, res) => {
    const view = running()
    answer(req, res, view).catch((error: unknown) => {
      // What a stop cut short is not a fault.
      const runs = running() !== null
      if (runs) view?.log.error(`forge: a page failed: ${messageOf(error)}`)
      if (res.headersSent) res.destroy()
      else send(res, runs ? text(500, 'internal error') : notRunning)
    })
  }
}

async function answer(req: IncomingMessage, res: ServerResponse, view: NodeView | null): Promise<void> {
  const path = pathOf(req)
  if (!methods.includes(req.method ?? '')) return send(res, text(405, 'method not allowed'))
  if (path === '/live') return send(res, probe(true))
  if (path === '/ready') return send(res, probe(view?.ready() ?? false))
  if (!view) return send(res, notRunning)
  const decision = await decide(req, view.policy)
  if (decision === 'unavailable') return send(res, text(503, 'the access check did not answer'))
  if (decision === 'denied') return send(res, text(403, 'forbidden'))
  if (path === '/status.css') return send(res, { status: 200, type: 'text/css', body: statusCss })
  if (path !== '/') return send(res, text(404, 'not found'))
  const body = statusPage(await view.page(), { title: view.title, mount: mountOf(req) })
  send(res, { status: 200, type: 'text/html', body })
}

/** Without the query, and without slashes at the end. */
function pathOf(req: IncomingMessage): string {
  return withoutLastSlashes((req.url ?? '/').split('?', 1)[0] as string) || '/'
}

/** A loop: the pattern for it takes quadratic time on a long row of slashes that something follows. */
function withoutLastSlashes(path: string): string {
  let length = path.length
  while (length > 0 && path[length - 1] === '/') length--
  return path.slice(0, length)
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly body: string
}

const methods = ['GET', 'HEAD']

function send(res: ServerResponse, { status, type, body }: Answer): void {
  res.writeHead(status, {
    ...headers,
    ...(status === 405 ? { allow: methods.join(', ') } : {}),
    'content-type': `${type}; charset=utf-8`,
    'content-length': String(Buffer.byteLength(body)),
  })
  res.end(res.req.method === 'HEAD' ? undefined : body)
}

function text(status: number, body: string): Answer {
  return { status, type: 'text/plain', body: `${body}\n` }
}

const notRunning = text(503, 'forge is not running')

function probe(good: boolean): Answer {
  return {
    status: good ? 200 : 503,
    type: 'application/json',
    body: JSON.stringify({ status: good ? 'ok' : 'not ok' }),
  }
}

/**
 * The path that leads to this mount, as the browser spells it; only asked on the page at its root, so that nothing but
 * slashes follows it. One slash first, so never another host.
 */
function mountOf(req: IncomingMessage & { originalUrl?: string }): string {
  const whole = (req.originalUrl ?? req.url ?? '/').split('?', 1)[0] as string
  const mount = withoutLastSlashes(whole).replace(/^[/\\]+/, '')
  return mount && `/${mount}`
}
