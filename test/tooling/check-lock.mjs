/*
 * What `npm ci` needs of the lockfile and does not say itself: every optional platform package of every entry is listed
 * (npm drops those that a registry does not have yet, and a later `npm ci` on the same lock refuses), and nothing in it
 * belongs to one machine or one registry.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { isMain, root } from './install.mjs'

/** Node's own look-up: in the package's node_modules, then in those of the folders above. */
function resolves(packages, from, name) {
  for (let place = from; ; place = place.slice(0, Math.max(place.lastIndexOf('/node_modules/'), 0))) {
    if (packages[place === '' ? `node_modules/${name}` : `${place}/node_modules/${name}`]) return true
    if (place === '') return false
  }
}

/**
 * @param {string} text of a lockfile
 * @returns {string[]}
 */
export function lockFaults(text) {
  const faults = []
  const { packages } = JSON.parse(text)
  for (const [place, entry] of Object.entries(packages)) {
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      if (!resolves(packages, place, name)) faults.push(`${place}: optional dependency ${name} has no entry`)
    }
    if (entry.resolved !== undefined) faults.push(`${place}: names where it was fetched (${entry.resolved})`)
    if (place !== '' && entry.integrity === undefined && !entry.link)
      faults.push(`${place}: has no integrity`)
  }
  const paths = text.match(/"(?:file:|\/|[A-Za-z]:\\)[^"]*"/g) ?? []
  for (const found of paths) faults.push(`names a path of one machine: ${found}`)
  return faults
}

if (isMain(import.meta.url)) {
  const faults = lockFaults(readFileSync(path.join(root, 'package-lock.json'), 'utf8'))
  for (const fault of faults) process.stderr.write(`package-lock.json: ${fault}\n`)
  process.exitCode = faults.length > 0 ? 1 : 0
}
