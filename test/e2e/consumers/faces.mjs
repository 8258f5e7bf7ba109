/* Loads every face both ways, without any optional package installed, and says whether both ways share the instance. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const names = Object.keys(JSON.parse(readFileSync(require.resolve('forge/package.json'), 'utf8')).exports)
const faces = names.filter((name) => name !== './package.json').map((name) => name.replace(/^\./, 'forge'))

const imported = {}
for (const face of faces) imported[face] = await import(face)
const different = faces.filter(
  (face) =>
    Object.keys(require(face)).sort().join() !==
    Object.keys(imported[face])
      .filter((key) => key !== 'default')
      .sort()
      .join(),
)

const { forge, createForge, isForgeError } = imported.forge
const other = require('forge')
process.stdout.write(
  `${JSON.stringify({
    faces,
    different,
    oneInstance: forge === other.forge && forge === globalThis[Symbol.for('forge/1')],
    another: createForge() !== forge,
    // Told by brand: the classes of the two builds are two classes.
    errorsKnown: isForgeError(new other.NotAttached('consumer.double')),
  })}\n`,
)
