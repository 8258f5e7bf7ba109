import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  statfs,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { ForgeError } from '../kernel/index.js'
import { mayEnter, type Account } from './account.js'
import type { Binaries } from './binaries.js'
import { serverEnv } from './guarded.js'
import { LogTail } from './log.js'
import type { EmbeddedPlan } from './options.js'

const initMsMax = 120_000
const memoryFolder = '/dev/shm'
const memoryBytesMin = 2 * 1024 ** 3
const passwordFile = 'forge-password'

export interface DataSpec {
  readonly plan: EmbeddedPlan
  readonly binaries: Binaries
  readonly account: Account | null
}

export interface DataFolder {
  readonly dir: string
  /** null: the folder was not made by forge, and its pg_hba.conf decides. */
  readonly password: string | null
  /** Made by this call, hence ours to remove. */
  readonly created: boolean
}

/** @throws ForgeError FORGE_EMBEDDED_FAILED: not a data folder, of another major version, not ours, or initdb failed */
export async function prepareData(spec: DataSpec): Promise<DataFolder> {
  const dir = await folderFor(spec)
  const created = !(await isDataFolder(dir, spec))
  if (created) await initialise(dir, spec)
  const password = await readFile(join(dir, passwordFile), 'utf8').catch(() => null)
  return { dir, created, password: password?.trim() ?? null }
}

async function folderFor({ plan, binaries, account }: DataSpec): Promise<string> {
  if (plan.dataDir) {
    const dir = resolve(plan.cwd, plan.dataDir)
    await mkdir(dirname(dir), { recursive: true })
    return dir
  }
  if (!plan.keep) return join(await temporaryHome(plan), `forge-data-${randomBytes(8).toString('hex')}`)
  if (account) {
    const checkout = createHash('sha256').update(plan.cwd).digest('hex').slice(0, 12)
    return join(tmpdir(), `forge-data-${binaries.major}-${checkout}`)
  }
  const home = join(plan.cwd, '.forge')
  await mkdir(home, { recursive: true })
  await writeFile(join(home, '.gitignore'), '*\n', { flag: 'wx' }).catch(() => {})
  return join(home, `postgres-${binaries.major}`)
}

/**
 * Data that need not last lie in memory where the system offers that: a database is some 300 files, and to create one
 * took 30 ms there against 120 to 400 ms on disk. A container's usual 64 MB are not enough.
 */
async function temporaryHome({ durable }: EmbeddedPlan): Promise<string> {
  const free = durable ? null : await statfs(memoryFolder).catch(() => null)
  return free && free.bavail * free.bsize >= memoryBytesMin ? memoryFolder : tmpdir()
}

/** False: missing or empty. */
async function isDataFolder(dir: string, { binaries, account }: DataSpec): Promise<boolean> {
  const entry = await lstat(dir).catch(() => null)
  if (!entry) return false
  if (entry.isDirectory() && (await readdir(dir)).length === 0) return false
  const made = await readFile(join(dir, 'PG_VERSION'), 'utf8').catch(() => null)
  if (made === null) throw failed(`${dir} is not empty and not a data folder of PostgreSQL.`)
  if (Number.parseInt(made, 10) !== binaries.major) {
    throw failed(
      `${dir} was made by PostgreSQL ${made.trim()}, this is ${binaries.major}. Remove it or use another.`,
    )
  }
  // Under the temporary folder anyone could have put it there.
  if (account && entry.uid !== account.uid)
    throw failed(`${dir} belongs to user ${entry.uid}, not ${account.uid}.`)
  return true
}

/** In a folder beside, moved into place when it is whole: a crash halfway leaves nothing that looks like data. */
async function initialise(dir: string, spec: DataSpec): Promise<void> {
  const { account } = spec
  if (account && !(await mayEnter(dirname(dir), account))) {
    throw failed(
      `The server runs as user ${account.uid}, who cannot enter ${dirname(dir)}. Choose another dataDir.`,
    )
  }
  const staging = await mkdtemp(`${dir}.new-`)
  const [data, password] = [join(staging, 'data'), join(staging, 'password')]
  try {
    await writeFile(password, `${randomBytes(16).toString('hex')}\n`, { mode: 0o600 })
    if (account) for (const path of [staging, password]) await chown(path, account.uid, account.gid)
    await runInitdb(spec, ['-D', data, `--pwfile=${password}`])
    await rename(password, join(data, passwordFile))
    await rename(data, dir)
  } catch (error) {
    // Another process was faster; which of us may run on it is for the server's own lock to say.
    if (!(await isDataFolder(dir, spec))) throw error
  } finally {
    await rm(staging, { recursive: true, force: true })
  }
}

async function runInitdb({ plan, binaries, account }: DataSpec, target: readonly string[]): Promise<void> {
  const args = [
    ...target,
    '--username=postgres',
    '--encoding=UTF8',
    '--auth=scram-sha-256',
    '--no-instructions',
  ]
  args.push(...localeArgs(binaries.major), ...(plan.durable ? [] : ['--no-sync']))
  try {
    await promisify(execFile)(join(binaries.native, 'bin', 'initdb'), args, {
      ...account,
      cwd: '/',
      env: serverEnv,
      timeout: initMsMax,
      killSignal: 'SIGKILL',
    })
  } catch (error) {
    const { stdout, stderr, killed } = error as { stdout?: string; stderr?: string; killed?: boolean }
    const log = new LogTail()
    log.push(`${stdout ?? ''}${stderr ?? ''}`)
    const what = killed ? `initdb did not finish within ${initMsMax} ms.` : 'initdb failed.'
    throw failed(`${what}${log.quoted()}`, error)
  }
}

/** The same rules on every machine: bytewise order, and from 17 on upper and lower case of all scripts. */
function localeArgs(major: number): readonly string[] {
  return major >= 17
    ? ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
    : ['--locale=C']
}

function failed(what: string, cause?: unknown): ForgeError {
  return new ForgeError('FORGE_EMBEDDED_FAILED', what, { cause })
}
