import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import { startEmbedded, type EmbeddedOptions, type EmbeddedPostgres } from '../../src/embedded/index.js'

const hook = new URL('../support/typescript.mjs', import.meta.url).href
const owner = fileURLToPath(new URL('fixtures/owner.ts', import.meta.url))

/** A folder that every account may enter, gone after the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'forge-embedded-test-'))
  await chmod(folder, 0o755)
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** A server for one test, without regard for the machine's crash. */
export async function start(options: EmbeddedOptions = {}): Promise<EmbeddedPostgres> {
  const server = await startEmbedded({ durable: false, keep: false, ...options })
  onTestFinished(() => server[Symbol.asyncDispose]())
  return server
}

export async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 })
  client.on('error', () => {})
  await client.connect()
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql)
    return rows
  } finally {
    await client.end()
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

export interface Owner {
  readonly child: ChildProcess
  readonly url: string
  readonly pid: number
  readonly dataDir: string
}

export interface OwnerSpec {
  readonly options: EmbeddedOptions
  /** What it does once the server runs; see the fixture. Default stay. */
  readonly then?: 'stay' | 'leave' | 'obey'
  readonly spawnOptions?: SpawnOptions
}

/** Another process that starts a server and tells where it is. */
export async function startOwner({ options, then = 'stay', spawnOptions }: OwnerSpec): Promise<Owner> {
  const args = ['--import', hook, owner, JSON.stringify({ durable: false, ...options }), then]
  const child = spawn(process.execPath, args, { ...spawnOptions, stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  if (!child.stdout) throw new Error('The owner has no output.')
  const lines = createInterface({ input: child.stdout })
  const [line] = (await Promise.race([once(lines, 'line'), once(lines, 'close')])) as string[]
  if (!line) throw new Error('The owner ended before its server was ready.')
  return { child, ...(JSON.parse(line) as Omit<Owner, 'child'>) }
}
