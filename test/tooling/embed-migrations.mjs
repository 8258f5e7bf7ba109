/*
 * Embeds migrations/*.sql into one module, so that they are there also in a bundled host.
 * `--check` writes nothing and fails on a difference.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { isMain, root } from './install.mjs'

const target = 'src/database/migrations.gen.ts'

/** @param {{ readonly file: string, readonly text: string }} source */
function parseMigration({ file, text }) {
  const match = /^(\d{4})_([a-z0-9_]+)\.sql$/.exec(file)
  if (!match) throw new Error(`migrations/${file}: name it like 0001_cluster.sql`)
  // Line ends are normalised first: a checkout on Windows must not change the checksum.
  const sql = text.replaceAll('\r\n', '\n')
  const version = Number(match[1])
  const requires = /^-- requires-code: (\d+)$/m.exec(sql)?.[1]
  return {
    version,
    name: match[2],
    requires: requires === undefined ? version : Number(requires),
    sql,
    checksum: createHash('sha256').update(sql).digest('hex'),
  }
}

/**
 * The text of the generated module.
 * @param {readonly { readonly file: string, readonly text: string }[]} sources in any order
 */
export function renderMigrations(sources) {
  const migrations = sources.map(parseMigration).sort((left, right) => left.version - right.version)
  migrations.forEach(({ version }, index) => {
    if (version !== index + 1)
      throw new Error(`migrations: version ${index + 1} is missing, or one stands twice`)
  })
  const items = migrations.map((migration) => {
    const fields = Object.entries(migration).map(([key, value]) => `    ${key}: ${JSON.stringify(value)},\n`)
    return `  {\n${fields.join('')}  },\n`
  })
  return `// Generated from migrations/*.sql by \`npm run generate\`. Do not edit.

export interface Migration {
  readonly version: number
  readonly name: string
  /** The lowest code version that may run on a database with this migration. */
  readonly requires: number
  readonly sql: string
  /** SHA-256 of the file's text, hexadecimal. */
  readonly checksum: string
}

export const migrations: readonly Migration[] = [
${items.join('')}]
`
}

function readSources() {
  const folder = path.join(root, 'migrations')
  const files = readdirSync(folder).filter((file) => !file.startsWith('.'))
  return files.map((file) => ({ file, text: readFileSync(path.join(folder, file), 'utf8') }))
}

function main() {
  const text = renderMigrations(readSources())
  const file = path.join(root, target)
  const standing = existsSync(file) ? readFileSync(file, 'utf8').replaceAll('\r\n', '\n') : undefined
  if (standing === text) return
  if (process.argv.includes('--check')) {
    process.stderr.write(`${target} is stale: run npm run generate\n`)
    process.exitCode = 1
  } else {
    writeFileSync(file, text)
  }
}

if (isMain(import.meta.url)) main()
