import { execFile } from 'node:child_process'
import { readFile, readlink, realpath, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ForgeError, sleep, systemClock } from '../kernel/index.js'

/** How long a server that is running may take to go: its owner may have died this moment, as under a watch mode. */
const leaveMsMax = 3_000
/** The same for one that says it is shutting down. */
const shutdownMsMax = 30_000
const pollMs = 25

interface Holder {
  readonly pid: number
  readonly port: string
  readonly status: string
}

/**
 * Waits until no server runs on the folder. A pid file that a crash left behind is the server's own to judge, save
 * for one case: its number now belongs to another process of the same user, which the server would take for itself.
 * @throws ForgeError FORGE_EMBEDDED_IN_USE
 */
export async function waitUntilUnclaimed(dir: string): Promise<void> {
  const since = systemClock.monotonicMs()
  for (;;) {
    const holder = await holderOf(dir)
    if (!holder) return
    const waitedMs = systemClock.monotonicMs() - since
    if (waitedMs > (holder.status === 'stopping' ? shutdownMsMax : leaveMsMax)) throw inUse(dir, holder)
    await pause(pollMs)
  }
}

export function inUse(dir: string, holder?: Holder): ForgeError {
  const who = holder ? `process ${holder.pid}, port ${holder.port}` : 'it locked the folder a moment ago'
  return new ForgeError('FORGE_EMBEDDED_IN_USE', `${dir}: ${who}. Stop it, or choose another dataDir.`)
}

async function holderOf(dir: string): Promise<Holder | null> {
  const path = join(dir, 'postmaster.pid')
  const text = await readFile(path, 'utf8').catch(() => '')
  // Lines as PostgreSQL's miscadmin.h has them: pid, folder, start time, port, socket folder, address, memory, status.
  const lines = text.split('\n').map((line) => line.trim())
  const pid = Number(lines[0])
  if (!Number.isInteger(pid) || pid <= 0 || !mayBeAlive(pid)) return null
  if (await runsOn(pid, dir)) return { pid, port: lines[3] ?? 'unknown', status: lines[7] ?? '' }
  await rm(path, { force: true })
  return null
}

/** A process of another user cannot be the server of our folder: the server insists on owning it. */
function mayBeAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** A server's working directory is its data folder. Where that cannot be read, its command line names the folder. */
async function runsOn(pid: number, dir: string): Promise<boolean> {
  const real = await realpath(dir)
  if (process.platform === 'linux') {
    const folder = await readlink(`/proc/${pid}/cwd`).catch(() => null)
    return folder === real
  }
  const ps = promisify(execFile)('ps', ['-o', 'command=', '-p', String(pid)], { timeout: 5_000 })
  const { stdout } = await ps.catch(() => ({ stdout: '' }))
  return stdout.includes('postgres') && (stdout.includes(real) || stdout.includes(dir))
}

/** sleep() of the kernel lets the process end meanwhile; a start in progress must not be cut short by that. */
function pause(ms: number): Promise<void> {
  const hold = setInterval(() => {}, ms)
  return sleep(systemClock, ms).finally(() => clearInterval(hold))
}
