import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { until } from '../support/until.js'

export interface Bouncer extends AsyncDisposable {
  /** The same database, through the pooler. */
  readonly url: string
}

/** A real PgBouncer in front of one database, on a free port of the loopback. */
export async function startBouncer(
  program: string,
  databaseUrl: string,
  mode: 'session' | 'transaction',
): Promise<Bouncer> {
  const { hostname, port, username, password, pathname } = new URL(databaseUrl)
  const name = pathname.slice(1)
  const listenPort = await freePort()
  const folder = mkdtempSync(path.join(tmpdir(), 'forge-pgbouncer-'))
  const file = path.join(folder, 'pgbouncer.ini')
  const login = `user=${username} password=${decodeURIComponent(password)}`
  writeFileSync(
    file,
    `[databases]
${name} = host=${hostname} port=${port} dbname=${name} ${login}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${listenPort}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
default_pool_size = 20
max_client_conn = 200
`,
  )
  chmodSync(folder, 0o755)
  // It refuses to run as root.
  const user = process.getuid?.() === 0 ? ['-u', 'nobody'] : []
  const child = spawn(program, [...user, file], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4_000)))
  const stop = (): Promise<void> => end(child).then(() => rmSync(folder, { recursive: true, force: true }))
  try {
    await until(() => answers(listenPort), { label: 'pgbouncer listens' })
  } catch (error) {
    await stop()
    throw new Error(`pgbouncer did not start: ${said}`, { cause: error })
  }
  const url = new URL(databaseUrl)
  url.hostname = '127.0.0.1'
  url.port = String(listenPort)
  return { url: url.href, [Symbol.asyncDispose]: stop }
}

async function end(child: ChildProcess): Promise<void> {
  const ended = new Promise<void>((resolve) => void child.once('exit', () => resolve()))
  if (child.exitCode !== null || child.signalCode !== null || !child.kill('SIGKILL')) return
  await ended
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
