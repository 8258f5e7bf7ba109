/* Builds dist from nothing. `--if-stale` leaves it alone while no source is newer than the last finished build. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { root, toolNode } from './install.mjs'

const sources = ['src', 'migrations', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsup.config.ts']
const stamp = path.join(root, 'dist/.built')

function newest(file) {
  if (!existsSync(file)) return 0
  const { mtimeMs } = statSync(file)
  if (!statSync(file).isDirectory()) return mtimeMs
  return Math.max(mtimeMs, ...readdirSync(file).map((name) => newest(path.join(file, name))))
}

function isFresh() {
  if (!existsSync(stamp)) return false
  return Math.max(...sources.map((source) => newest(path.join(root, source)))) < statSync(stamp).mtimeMs
}

function build() {
  rmSync(path.join(root, 'dist'), { recursive: true, force: true })
  mkdirSync(path.join(root, 'dist'))
  // The stamp is written last and dated first: a source saved during the build makes it stale.
  const startedAt = new Date()
  const { status } = spawnSync(toolNode, ['node_modules/tsup/dist/cli-default.js', '--silent'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (status !== 0) process.exit(status ?? 1)
  writeFileSync(stamp, '')
  utimesSync(stamp, startedAt, startedAt)
}

if (!process.argv.includes('--if-stale') || !isFresh()) build()
