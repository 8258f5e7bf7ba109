/* `npm run chaos`: the fault tests in their long form, with outages of a minute and a hundred zombies. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { root, toolNode } from './install.mjs'

const vitest = path.join(root, 'node_modules/vitest/vitest.mjs')
const options = ['run', '--config', 'test/vitest.config.ts', 'test/chaos', ...process.argv.slice(2)]
const { status } = spawnSync(toolNode, [vitest, ...options], {
  cwd: root,
  env: { ...process.env, FORGE_CHAOS: 'long' },
  stdio: ['ignore', 'inherit', 'inherit'],
})
process.exitCode = status ?? 1
