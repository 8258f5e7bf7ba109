import { createServer } from 'node:http'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { createRoutes, mount } from '../../src/host/index.js'
import { listeningLogger } from '../support/forge.js'
import { silentLogger, systemClock } from '../../src/kernel/index.js'
import { hosts } from './hosts.js'
import { listen, page, type Raw, routes, secret, type Shown } from './kit.js'

const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; " +
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}

function headersOf({ head }: Raw): Record<string, string> {
  const lines = head.split('\r\n').slice(1)
  return Object.fromEntries(
    lines.map((line) => [line.split(': ')[0]?.toLowerCase(), line.replace(/^[^:]*: /, '')]),
  )
}

type Asked = readonly [what: string, status: number, shown: Shown | null, path: string]

const answers: readonly Asked[] = [
  ['the page', 200, {}, ''],
  ['the style sheet', 200, {}, '/status.css'],
  ['the live probe', 200, {}, '/live'],
  ['the ready probe', 200, {}, '/ready'],
  ['the live probe of a node that does not run', 200, null, '/live'],
  ['the ready probe of a node that is not ready', 503, { ready: false }, '/ready'],
  ['the page of a node that does not run', 503, null, ''],
  ['a denial', 403, { authorize: () => false }, ''],
  ['a denial of what is not there', 403, { authorize: () => false }, '/nothing'],
  ['what is not there', 404, {}, '/nothing'],
  ['a page that fails', 500, { page: () => Promise.reject(new Error('select failed at secret')) }, ''],
]

describe.each(Object.entries(hosts))('on %s', (_, { at, make }) => {
  it.each(answers)('%s is a %i with every header of safety, and the same for HEAD', async (...asked) => {
    const [, status, shown, path] = asked
    await using wire = await listen(make(routes(shown)))
    const got = await wire.get(at + path)
    expect(got.status).toBe(status)
    expect(headersOf(got)).toMatchObject({
      ...headers,
      'content-length': String(Buffer.byteLength(got.body)),
    })
    if (status !== 200) expect(got.body).not.toMatch(/secret|select|Error|at .*\.ts/)
    const head = await wire.send(`HEAD ${at}${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    expect({ status: head.status, body: head.body }).toEqual({ status, body: '' })
    expect(headersOf(head)).toMatchObject({
      ...headers,
      'content-length': String(Buffer.byteLength(got.body)),
    })
  })

  it.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'M-SEARCH'])(
    'the method %s is refused on every route, with what is allowed',
    async (method) => {
      await using wire = await listen(make(routes({})))
      for (const path of ['', '/live', '/ready', '/status.css', '/nothing']) {
        const body = '{"state":"x"}'
        const answer = await wire.send(
          `${method} ${at}${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n` +
            `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        expect(answer.status).toBe(405)
        expect(headersOf(answer)).toMatchObject({ ...headers, allow: 'GET, HEAD' })
      }
    },
  )

  it('a method in the wrong case and a request that is none are Node’s to refuse', async () => {
    await using wire = await listen(make(routes({})))
    expect((await wire.send(`get ${at} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)).status).toBe(400)
    expect((await wire.send('\0\0\0\r\n\r\n')).status).toBe(400)
  })

  it('the page names its style sheet by the way on which it was reached', async () => {
    await using wire = await listen(make(routes({})))
    const ways = [at, `${at}/`, `${at}//`, `${at}?a=1`, `${at}/?/x`]
    for (const way of ways) {
      const { body } = await wire.get(way)
      expect(body, way).toContain(`<link rel="stylesheet" href="${at}/status.css">`)
    }
    const css = await wire.get(`${at}/status.css`)
    expect(headersOf(css)['content-type']).toBe('text/css; charset=utf-8')
  })
})

describe('the page', () => {
  it('names no other host, whatever the request line holds', async () => {
    const app = express()
    mount(
      { use: (_path, handler) => app.use('/:any', handler as express.RequestHandler) },
      '/forge',
      routes({}),
    )
    await using wire = await listen(app)
    for (const way of [
      '/\\evil.example',
      '/\\\\evil.example/',
      '/%22onload=x',
      "/'><script>",
      '/"><script>',
    ]) {
      const { body } = await wire.get(way)
      expect(body.match(/href="([^"]*)"/g)).toEqual([
        'href="data:,"',
        expect.stringMatching(/^href="\/[^/\\]/),
      ])
      expect(body).not.toMatch(/<script|[^\w-]on\w+=/)
    }
  })

  it('is asked for anew by each request, and so is the policy', async () => {
    let [asked, read] = [0, 0]
    const shown = routes({
      authorize: () => ((asked += 1) % 2 === 1 ? 'read' : false),
      page: () => Promise.resolve({ ...page, node: { ...page.node, running: (read += 1) } }),
    })
    await using wire = await listen(createServer((req, res) => shown(req, res, () => {})))
    const statuses = []
    for (let round = 0; round < 4; round += 1) statuses.push((await wire.get('/')).status)
    expect({ statuses, asked, read }).toEqual({ statuses: [200, 403, 200, 403], asked: 4, read: 2 })
  })

  it('that fails is logged once, and not at all when a stop cut it short', async () => {
    const { logger, heard } = listeningLogger()
    let runs = true
    let cut = (): void => {}
    const view = {
      policy: { authorize: () => 'read' as const, development: false, clock: systemClock, log: silentLogger },
      title: 'forge',
      log: logger,
      ready: () => true,
      page: () => {
        cut()
        return Promise.reject(new Error('it broke'))
      },
    }
    const handler = createRoutes(() => (runs ? view : null))
    await using wire = await listen(createServer((req, res) => handler(req, res, () => {})))
    expect((await wire.get('/')).status).toBe(500)
    cut = () => (runs = false)
    expect((await wire.get('/')).status).toBe(503)
    expect(heard).toEqual([{ level: 'error', message: 'forge: a page failed: it broke', fields: undefined }])
  })

  it('shows what the node says', async () => {
    const shown = routes({ title: 'Shop & Co' })
    await using wire = await listen(createServer((req, res) => shown(req, res, () => {})))
    const { body } = await wire.get('/')
    expect(body).toContain(secret)
    expect(body).toContain('<title>Shop &amp; Co · status</title>')
  })
})

describe('a mount', () => {
  it('is one slot per app and path, in any case, until it is given up', () => {
    const app = express()
    const release = mount(app, '/forge', routes({}))
    expect(() => mount(app, '/Forge', routes({}))).toThrow(/Path \/Forge.*Choose another path/)
    mount(app, '/forge/deeper', routes({}))
    release()
    const next = mount(app, '/FORGE', routes({}))
    // The first is over; it cannot take the place of the second.
    release()
    expect(() => mount(app, '/forge', routes({}))).toThrow(/Path \/forge/)
    next()
    expect(app.router.stack).toHaveLength(2)
    expect(mount(null, '/forge', routes({}))()).toBeUndefined()
  })

  it('answers with the handler of the last one who had it', async () => {
    const app = express()
    mount(app, '/forge', routes(null))()
    await using wire = await listen(app)
    expect((await wire.get('/forge')).status).toBe(503)
    mount(app, '/forge', routes({}))
    expect((await wire.get('/forge')).status).toBe(200)
  })
})
