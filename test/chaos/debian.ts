import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

/**
 * A program or library of a Debian package, installed when it is not there and can be; null when it cannot be had, with
 * a word about what is skipped for it.
 */
export function fromDebian(packageName: string, places: readonly string[]): string | null {
  const find = (): string | undefined => places.find((place) => existsSync(place))
  if (!find() && process.getuid?.() === 0) install(packageName)
  const found = find()
  if (!found)
    process.stderr.write(`No ${packageName}: its tests are SKIPPED. Install the package to run them.\n`)
  return found ?? null
}

function install(packageName: string): void {
  const apt = (...args: string[]): boolean =>
    spawnSync('apt-get', ['-qq', ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      timeout: 180_000,
    }).status === 0
  const wanted = ['install', '-y', '--no-install-recommends', packageName]
  if (!apt(...wanted) && apt('update')) apt(...wanted)
}
