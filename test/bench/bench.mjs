/*
 * `npm run bench [-- scenario …] [options]`: how fast this build of forge is, against plain SQL on the same server and,
 * with --peers, against other queues. On a fresh clone too: installs and builds what is missing. README.md says more.
 */
import { spawn, spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { install, root, toolNode } from '../tooling/install.mjs'

install()
const build = path.join(root, 'test/tooling/build.mjs')
const built = spawnSync(toolNode, [build, '--if-stale'], { stdio: ['ignore', 'inherit', 'inherit'] })
if (built.status !== 0) process.exit(built.status ?? 1)

const script = fileURLToPath(new URL('main.mjs', import.meta.url))
const child = spawn(toolNode, [script, ...process.argv.slice(2)], { stdio: 'inherit' })
// Ctrl-C reaches the child by itself; a signal for this process alone does not.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => signal !== 'SIGINT' && child.kill(signal))
child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal ?? 'SIGKILL']))
