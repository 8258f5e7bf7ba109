/* Starts three nodes, says which of them leads, and replaces those that die. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createForge, type Leader } from 'forge'
import { startEmbedded } from 'forge/embedded'
import pg from 'pg'

const script = fileURLToPath(new URL('./node.ts', import.meta.url))
const root = fileURLToPath(new URL('../../', import.meta.url))
const lookMs = 200

const given = process.env.DATABASE_URL
const server = given ? null : await startEmbedded({ cwd: root, keep: false })
const url = given ?? server?.url ?? ''

const children = new Map<string, ChildProcess>()
let ending = false

async function keep(name: string): Promise<void> {
  while (!ending) {
    const child = fork(script, { env: { ...process.env, DATABASE_URL: url, NODE_NAME: name }, execArgv: [] })
    children.set(name, child)
    console.log(`${name} is process ${child.pid ?? 0}`)
    const [, signal] = (await once(child, 'exit')) as [number | null, string | null]
    if (ending) return
    console.log(`${name} ended${signal ? ` by ${signal}` : ''}; another takes its place`)
    await pause(1_000)
  }
}

const pool = new pg.Pool({ connectionString: url, max: 2 })
pool.on('error', () => {})
const watcher = await createForge().attach(null, pool, { roles: ['gateway'] })
const kept = ['first', 'second', 'third'].map(keep)

function say({ pid, term, locked }: Leader): void {
  const name = [...children].find(([, child]) => child.pid === pid)?.[0] ?? 'somebody'
  const held = locked ? 'lock and term' : 'term alone'
  console.log(
    `${name} (process ${pid}) leads under term ${term.n}, by ${held}. Move the lead: kill -9 ${pid}`,
  )
}

async function end(): Promise<void> {
  if (ending) return
  ending = true
  for (const child of children.values()) child.kill('SIGTERM')
  await Promise.all(kept)
  await watcher.stop()
  await pool.end()
  await server?.[Symbol.asyncDispose]()
  process.exit()
}
process.on('SIGINT', () => void end())
process.on('SIGTERM', () => void end())
process.on('disconnect', () => void end())

let last = 0
while (!ending) {
  const leader = await watcher.cluster.leader('scheduler').catch(() => null)
  if (leader && leader.term.n !== last && !ending) {
    last = leader.term.n
    say(leader)
  }
  await pause(lookMs)
}
