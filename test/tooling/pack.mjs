/* Packs the built package as `npm publish` would, into a folder of the caller. */
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { machineEnvironment, root } from './install.mjs'

/** @typedef {{ readonly tarball: string, readonly bytes: number, readonly files: readonly string[] }} Packed */

/**
 * @param {string} folder
 * @returns {Packed}
 */
export function pack(folder) {
  const output = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
    env: machineEnvironment(),
    encoding: 'utf8',
    shell: process.platform === 'win32',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [packed] = Object.values(JSON.parse(output))
  return {
    tarball: path.join(folder, packed.filename),
    bytes: packed.size,
    files: packed.files.map((file) => file.path),
  }
}
