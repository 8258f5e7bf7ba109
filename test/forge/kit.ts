import { once } from 'node:events'
import { createServer, request, type IncomingHttpHeaders, type RequestListener, Server } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { createForge } from '../../src/index.js'
import { spawnNode, type NodeProcess, startProxy } from '../../src/testing/index.js'
import type { TestDatabaseAccess } from '../support/database.js'
import { listeningLogger } from '../support/forge.js'
import { until } from '../support/until.js'

export interface Site extends AsyncDisposable {
  readonly port: number
  readonly url: string
  ask(path: string, options?: AskOptions): Promise<Answer>
}

export interface AskOptions {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** The app on a free port of the loopback. */
export async function serve(app: RequestListener | Server): Promise<Site> {
  const server = app instanceof Server ? app : createServer(app)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    ask: (path, options) => ask(port, path, options),
    [Symbol.asyncDispose]: async () => {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

/** One request on a connection of its own, so that no socket is left in an agent. */
function ask(port: number, path: string, { method = 'GET', headers = {} }: AskOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const given = { host: '127.0.0.1', port, path, method, headers, agent: false }
    request(given, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (text: string) => (body += text))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
      response.on('error', reject)
    })
      .on('error', reject)
      .end()
  })
}

/** The names of forge's connections to the database of this test. */
export async function forgeConnections(database: Pick<TestDatabaseAccess, 'query'>): Promise<string[]> {
  const rows = await database.query<{ name: string }>(
    `SELECT application_name AS name FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'forge:%' ORDER BY 1`,
  )
  return rows.map((row) => row.name)
}

/** What keeps this process alive, the test's own connection included. */
export async function openResources(database: TestDatabaseAccess): Promise<string[]> {
  await database.query('SELECT 1')
  return resourcesNow()
}

/** Without what is over in a moment. */
function resourcesNow(): string[] {
  return process
    .getActiveResourcesInfo()
    .filter((name) => !/^(TickObject|Immediate|FSReqCallback|CloseReq|GetAddrInfoReqWrap)$/.test(name))
    .sort()
}

/** Waits until forge has no connection, and this process holds no more than it held before. */
export async function untilNothingIsLeft(
  database: TestDatabaseAccess,
  before: readonly string[],
): Promise<void> {
  const left = async (): Promise<string[]> => [...moreThan(before), ...(await forgeConnections(database))]
  await until(async () => (await left()).length === 0, { label: 'nothing is left' }).catch(async () => {
    // For the difference in the message.
    expect(await left()).toEqual([])
  })
}

function moreThan(before: readonly string[]): string[] {
  const known = [...before]
  return resourcesNow().filter((name) => {
    const at = known.indexOf(name)
    if (at >= 0) known.splice(at, 1)
    return at < 0
  })
}

/** An instance whose pool leads through a proxy, a logger that listens, and what this process held before. */
export async function behindProxy(database: TestDatabaseAccess) {
  const { hostname, port } = new URL(database.url)
  const proxy = await startProxy({ target: { host: hostname, port: Number(port) } })
  const pool = database.pool({ connectionString: proxy.url(database.url) })
  const { logger, heard } = listeningLogger()
  const before = await openResources(database)
  return { proxy, pool, logger, heard, before, forge: createForge() }
}

export interface Gate extends AsyncDisposable {
  /** The database of the test, through the gate. */
  readonly url: string
  /** Connections that came while it was shut, and were reset. */
  readonly refused: number
  open(): void
}

/** A gate in front of the database that is shut at first, and counts who knocks. */
export async function shutGate(database: TestDatabaseAccess): Promise<Gate> {
  const target = new URL(database.url)
  let isOpen = false
  let refused = 0
  const server = createTcpServer((client) => {
    client.on('error', () => {})
    if (!isOpen) {
      refused += 1
      client.resetAndDestroy()
      return
    }
    const upstream = connect(Number(target.port), target.hostname)
    upstream.on('error', () => {})
    upstream.pipe(client).pipe(upstream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(database.url)
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url: url.href,
    get refused() {
      return refused
    },
    open: () => void (isOpen = true),
    [Symbol.asyncDispose]: async () => void server.close(),
  }
}

/** A process of its own that runs one of the fixtures, from the sources. */
export function spawnFixture(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): NodeProcess {
  return spawnNode({
    script: fileURLToPath(new URL(`./fixtures/${name}.ts`, import.meta.url)),
    args,
    execArgv: ['--import', new URL('../support/typescript.mjs', import.meta.url).href],
    // Without what vitest sets for its own workers.
    env: { PATH: process.env.PATH, ...env },
  })
}
