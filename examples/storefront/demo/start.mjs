/*
 * `npm run demo [-- --quiet]` and `npm run demo:load [-- --orders 200]`, on a fresh clone too: installs and builds what
 * is missing, then runs the demo with the Node of devDependencies, which reads TypeScript as it is. This file itself
 * needs nothing but Node and npm.
 */
import { spawn, spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { install, root, toolNode } from '../../../test/tooling/install.mjs'

install()
const build = path.join(root, 'test/tooling/build.mjs')
const built = spawnSync(toolNode, [build, '--if-stale'], { stdio: ['ignore', 'inherit', 'inherit'] })
if (built.status !== 0) process.exit(built.status ?? 1)

const [name, args] =
  process.argv[2] === 'load' ? ['load', process.argv.slice(3)] : ['demo', process.argv.slice(2)]
const script = fileURLToPath(new URL(`${name}.ts`, import.meta.url))
// The channel tells the demo when this process is gone, however it went.
const demo = spawn(toolNode, [script, ...args], { stdio: ['inherit', 'inherit', 'inherit', 'ipc'] })

// Ctrl-C reaches the demo by itself; a signal for this process alone does not.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
  process.on(signal, () => demo.kill(signal))
demo.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal ?? 'SIGKILL']))
