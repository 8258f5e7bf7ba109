import { ForgeError } from '../kernel/index.js'

/** Bytes of a job or queue name: names stand in index entries and in hints. */
const nameBytesMax = 200

/**
 * A name that is safe in a table, a URL, a log line and an object key: letters, digits and . _ : / - , a letter or
 * digit first. So `__proto__`, quotes, NUL, spaces and controls cannot occur.
 * @throws ForgeError FORGE_JOB_NAME_INVALID
 */
export function checkName(name: unknown, what: 'job' | 'queue'): string {
  const right =
    typeof name === 'string' &&
    Buffer.byteLength(name) <= nameBytesMax &&
    /^[\p{L}\p{N}][\p{L}\p{N}._:/-]*$/u.test(name)
  if (right) return name
  const shown = typeof name === 'string' ? JSON.stringify(name.slice(0, 60)) : `of type ${typeof name}`
  throw new ForgeError('FORGE_JOB_NAME_INVALID', `The ${what} name is ${shown}.`)
}
