/* What an example's first command does on a fresh clone. It needs nothing but Node and npm. */
import { spawn, spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { install, root, toolNode } from '../test/tooling/install.mjs'

/** Installs and builds what is missing, then runs the script with the Node of devDependencies, which reads TypeScript as it is. */
export function start(script, args = []) {
  install()
  const build = path.join(root, 'test/tooling/build.mjs')
  const built = spawnSync(toolNode, [build, '--if-stale'], { stdio: ['ignore', 'inherit', 'inherit'] })
  if (built.status !== 0) process.exit(built.status ?? 1)
  // The channel tells the script when this process is gone, however it went.
  const running = spawn(toolNode, [fileURLToPath(script), ...args], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
  })
  // Ctrl-C reaches it by itself; a signal for this process alone does not.
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
    process.on(signal, () => running.kill(signal))
  running.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal ?? 'SIGKILL']))
}
