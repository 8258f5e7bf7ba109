/*
 * Installs the dependencies when they do not match the lockfile. Needs nothing but Node and npm, so that the first command
 * on a fresh clone can be `npm test`.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../', import.meta.url))

/** The Node that runs the tools: the one of devDependencies, whatever the machine has. */
export const toolNode = path.join(
  root,
  'node_modules/node/bin',
  process.platform === 'win32' ? 'node.exe' : 'node',
)

/** An environment in which `npm` and `node` are those of the machine, also when npm put ours in front. */
export function machineEnvironment() {
  const own = path.join(root, 'node_modules', '.bin')
  const folders = (process.env.PATH ?? '')
    .split(path.delimiter)
    .filter((folder) => path.resolve(folder) !== own)
  return { ...process.env, PATH: folders.join(path.delimiter) }
}

function packagesOf(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined
}

/** Compares versions, not file times: a checkout touches the lockfile without changing it. */
function isInstalled() {
  const wanted = packagesOf(path.join(root, 'package-lock.json'))
  const present = packagesOf(path.join(root, 'node_modules/.package-lock.json'))
  if (!wanted || !present || !existsSync(toolNode)) return false
  return Object.entries(wanted).every(
    ([place, entry]) => place === '' || entry.optional || present[place]?.version === entry.version,
  )
}

export function install() {
  if (isInstalled()) return
  process.stdout.write('Installing dependencies (npm ci)\n')
  const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], {
    cwd: root,
    env: machineEnvironment(),
    shell: process.platform === 'win32',
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (status !== 0) process.exit(status ?? 1)
}

/** Whether the module of this URL is what `node` was started with, and not imported. */
export function isMain(url) {
  return process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url)
}

if (isMain(import.meta.url)) install()
