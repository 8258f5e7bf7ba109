import { execFile, type ExecFileOptions } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase } from '../support/database.js'
import { machineEnvironment } from '../tooling/install.mjs'
import { pack, type Packed } from '../tooling/pack.mjs'

/*
 * The package as its users get it: packed, installed into a blank app, and run by plain scripts on the oldest and the newest
 * Node. Those two come with the app's packages, on Linux x64; elsewhere the Node that runs the tests stands in.
 */
const root = fileURLToPath(new URL('../..', import.meta.url))
const scriptMsMax = 60_000

async function run(file: string, args: readonly string[], options: ExecFileOptions): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(file, [...args], { ...options, encoding: 'utf8' })
    return stdout
  } catch (error) {
    const { killed, stdout, stderr } = error as { killed?: boolean; stdout?: string; stderr?: string }
    const what = killed ? `did not end within ${options.timeout} ms` : 'failed'
    throw new Error(`${args.join(' ')} ${what}\n${stdout ?? ''}${stderr ?? ''}`)
  }
}

let consumer = ''
let packed: Packed

interface Seen {
  readonly own: number
  readonly live: number
  readonly ready: number
  readonly page: number
  readonly result: { readonly doubled: number; readonly node: string }
  readonly health: { readonly live: boolean; readonly ready: boolean }
  readonly threads: number
  readonly shared: boolean
}

beforeAll(async () => {
  await run(process.execPath, ['test/tooling/build.mjs', '--if-stale'], { cwd: root })
  consumer = await mkdtemp(path.join(tmpdir(), 'forge-consumer-'))
  packed = pack(consumer)
  await cp(path.join(root, 'test/e2e/consumers'), consumer, { recursive: true })
  await addDependency('forge', `file:${path.basename(packed.tarball)}`)
  const options = [
    'install',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    '--strict-peer-deps',
  ]
  await run('npm', options, { cwd: consumer, env: machineEnvironment() })
}, 300_000)

afterAll(() => rm(consumer, { recursive: true, force: true }))

async function addDependency(name: string, version: string): Promise<void> {
  const file = path.join(consumer, 'package.json')
  const content = JSON.parse(await readFile(file, 'utf8')) as { dependencies: Record<string, string> }
  content.dependencies[name] = version
  await writeFile(file, JSON.stringify(content))
}

function nodeBinary(alias: string): string {
  const binary = path.join(consumer, 'node_modules', alias, 'bin/node')
  return existsSync(binary) ? binary : process.execPath
}

/** Runs a script of the app to its own end; one that does not end is killed and fails. */
async function runScript(
  alias: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<string> {
  const { PATH = '', HOME = '' } = process.env
  const options = { cwd: consumer, env: { PATH, HOME, ...env }, timeout: scriptMsMax }
  return run(nodeBinary(alias), args, options)
}

async function exercise(script: string, alias: string, environment = 'test'): Promise<Seen> {
  const database = await createDatabase({ migrated: false })
  try {
    const output = await runScript(alias, [script], { NODE_ENV: environment, DATABASE_URL: database.url })
    return JSON.parse(output.trim().split('\n').at(-1) ?? '') as Seen
  } finally {
    await database.drop()
  }
}

async function bytesOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  const sizes = await Promise.all(files.map((file) => stat(path.join(file.parentPath, file.name))))
  return sizes.reduce((total, { size }) => total + size, 0)
}

/** The folders of forge and of everything that it brings along, peers left out. */
async function broughtBy(folder: string, seen = new Set<string>()): Promise<Set<string>> {
  if (seen.has(folder)) return seen
  seen.add(folder)
  const text = await readFile(path.join(folder, 'package.json'), 'utf8')
  const { dependencies = {} } = JSON.parse(text) as { dependencies?: Record<string, string> }
  for (const name of Object.keys(dependencies)) {
    const places = createRequire(path.join(folder, 'package.json')).resolve.paths(name) ?? []
    const place = places.map((base) => path.join(base, name)).find((candidate) => existsSync(candidate))
    if (place) await broughtBy(place, seen)
  }
  return seen
}

describe.each(['node-oldest', 'node-newest'])('the packed package on %s', (alias) => {
  it.each(['express.mjs', 'express.cjs', 'express4.cjs', 'nest.mjs'])(
    'serves, works and stops inside %s, which then ends by itself',
    async (script) => {
      const seen = await exercise(script, alias)
      expect(seen).toMatchObject({
        own: 200,
        live: 200,
        ready: 200,
        page: 200,
        shared: true,
      })
      expect(seen.result.doubled).toBe(42)
      expect(seen.threads, 'the pulse beats in a thread of its own').toBe(1)
      expect(seen.health).toMatchObject({ live: true, ready: true })
    },
  )

  it('answers 403 on the dashboard in production, and 200 to the probe', async () => {
    expect(await exercise('express.mjs', alias, 'production')).toMatchObject({
      own: 200,
      live: 200,
      page: 403,
    })
  })

  it('loads every face as a module and by require, with one default instance', async () => {
    expect(JSON.parse(await runScript(alias, ['faces.mjs']))).toEqual({
      faces: ['forge', 'forge/testing', 'forge/embedded'],
      different: [],
      oneInstance: true,
      another: true,
      errorsKnown: true,
    })
  })

  it('has a command that tells how it is used', async () => {
    const command = path.join(consumer, 'node_modules/forge/dist/cli.js')
    expect(await runScript(alias, [command, '--help'])).toContain('forge')
  })
})

describe('the packed package', () => {
  it('holds the pulse thread, in the one form that both builds start', async () => {
    const files = await readdir(path.join(consumer, 'node_modules/forge/dist'))
    expect(files.filter((file) => file.startsWith('pulse-thread'))).toEqual(['pulse-thread.cjs'])
  })

  it.each(['typed.mts', 'typed.cts'])('has types that %s compiles against', async (file) => {
    const compiler = path.join(root, 'node_modules/@typescript/native/bin/tsc')
    const options = [
      '--noEmit',
      '--strict',
      '--module',
      'nodenext',
      '--target',
      'es2022',
      '--lib',
      'es2023,esnext.disposable',
    ]
    await run(process.execPath, [compiler, ...options, file], { cwd: consumer })
  })

  it('is small, and brings few packages along', async () => {
    const brought = [...(await broughtBy(path.join(consumer, 'node_modules/forge')))]
    const installed = (await Promise.all(brought.map(bytesOf))).reduce((total, bytes) => total + bytes, 0)
    const { dependencies } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>
    }
    const direct = Object.keys(dependencies).length
    process.stdout.write(
      `packed ${packed.bytes} bytes, installed ${installed} bytes with what it brings along: ` +
        `${direct} runtime dependencies, ${brought.length - 1} packages\n`,
    )
    expect(direct).toBeLessThanOrEqual(12)
  })
})
