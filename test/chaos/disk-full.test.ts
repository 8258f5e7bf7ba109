import { execFileSync } from 'node:child_process'
import { chownSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type EmbeddedPostgres, startEmbedded } from '../../src/embedded/index.js'
import { createForge, isForgeError } from '../../src/index.js'
import { until } from '../support/until.js'
import { residentMb, startNode, stopNode } from './nodes.js'
import type { ChaosInput } from './worker.js'

/* The tables of jobs lie on a small disk of their own, which runs full; only root may make one, and not in every container. */
const small = path.join(tmpdir(), `forge-small-${process.pid}`)
const ballast = path.join(small, 'ballast')
const dataDir = path.join(tmpdir(), `forge-full-${process.pid}`)
const mounted = mount()
let server: EmbeddedPostgres
let pool: pg.Pool

function mount(): boolean {
  mkdirSync(small)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', small], { stdio: 'ignore' })
    return true
  } catch {
    rmSync(small, { recursive: true })
    return false
  }
}

beforeAll(async () => {
  if (!mounted) return
  server = await startEmbedded({ keep: false, durable: true, dataDir })
  const { uid, gid } = statSync(dataDir)
  mkdirSync(path.join(small, 'tables'))
  chownSync(path.join(small, 'tables'), uid, gid)
  pool = new pg.Pool({ connectionString: server.url, max: 4 })
})
afterAll(async () => {
  if (!mounted) return
  await pool.end()
  await server[Symbol.asyncDispose]()
  execFileSync('umount', [small])
  rmSync(small, { recursive: true })
})

async function moveJobs(): Promise<void> {
  await pool.query(`create tablespace small location '${path.join(small, 'tables')}'`)
  const { rows } = await pool.query<{ move: string }>(
    `select format('alter %s forge.%I set tablespace small', case relkind when 'i' then 'index' else 'table' end, relname) as move
     from pg_class where relnamespace = 'forge'::regnamespace and relkind in ('r', 'i')
       and (relname ~ '^job(_pkey|_ready)?$' or relname ~ '^job_history_[0-9]+')`,
  )
  for (const { move } of rows) await pool.query(move)
}

/** All but what the server takes in the meantime: the write itself fails at the end. */
function fillDisk(): void {
  try {
    writeFileSync(ballast, Buffer.alloc(48 * 1024 * 1024))
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOSPC') throw error
  }
}

const count = async (sql: string): Promise<number> =>
  (await pool.query<{ n: number }>(`select count(*)::int as n from ${sql}`)).rows[0]?.n ?? 0

it.runIf(mounted)(
  'lives through a full disk: typed errors, bounded work, nothing lost',
  { timeout: 120_000 },
  async () => {
    const forge = createForge()
    const work = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
    await using gateway = await forge.attach(null, pool, { roles: ['gateway'], logger: false })
    await moveJobs()
    await using worker = await startNode(server.url, { options: { roles: ['worker'] }, quiet: true })
    const acked: string[] = []
    for (let n = 0; n < 5; n++)
      acked.push(
        ...(await work.enqueueMany(Array.from({ length: 2_000 }, () => ({ ms: 5 }) as const))).map(
          ({ id }) => id,
        ),
      )
    await until(async () => (await count('forge.job_history')) > 500, { label: 'the work is under way' })

    fillDisk()
    const before = residentMb(worker.pid)
    const refusals: unknown[] = []
    const since = performance.now()
    await until(
      async () => {
        await work.enqueue({ ms: 1, batch: 'x'.repeat(2_000) }).then(
          ({ id }) => acked.push(id),
          (error: unknown) => refusals.push(error),
        )
        return refusals.length > 20 && performance.now() - since > 8_000
      },
      { label: 'enqueues are refused', deadlineMs: 60_000 },
    )
    expect(refusals.every((error) => isForgeError(error, 'FORGE_DISK_FULL'))).toBe(true)
    // What it runs and cannot write is bounded, whatever waits.
    const [running, waiting, grown] = [
      await count('forge.job where state = 3'),
      await count('forge.job where state = 2'),
      residentMb(worker.pid) - before,
    ]
    expect(waiting).toBeGreaterThan(1_000)
    expect(running).toBeLessThan(5_000)
    expect(grown).toBeLessThan(50)

    rmSync(ballast)
    const room = performance.now()
    acked.push((await work.enqueue({ ms: 1 })).id)
    await until(async () => (await count('forge.job')) === 0, { label: 'all jobs ended', deadlineMs: 60_000 })
    const ms = performance.now() - room
    const ended = await pool.query<{ id: string; claims: number }>(
      'select id, claims from forge.job_history where state = 5',
    )
    expect(new Set(ended.rows.map(({ id }) => id))).toEqual(new Set(acked))
    expect(ended.rows.every(({ claims }) => claims === 1)).toBe(true)
    expect(await stopNode(worker)).toBe(0)
    process.stdout.write(
      `disk full: ${refusals.length} enqueues refused, ${running} running and ${waiting} waiting meanwhile, ` +
        `${grown.toFixed(0)} MB more; ${acked.length} acknowledged and ended, ${ms.toFixed(0)} ms after there was room\n`,
    )
    // Backoff of at most a second, then as fast as ever.
    expect(ms).toBeLessThan(30_000)
  },
)
