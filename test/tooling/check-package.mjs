/*
 * The package as it would be published: builds it, packs it, and asks publint and are-the-types-wrong. Before that, what
 * neither of them sees: each import of the built files must be a declared dependency or peer (a devDependency would be
 * missing at the user's); the types may import a dependency, or a peer whose @types package is declared as well.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import ts from 'typescript'
import { isMain, root } from './install.mjs'
import { pack } from './pack.mjs'

function packageOf(specifier) {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
}

function mayImport(manifest, file, specifier) {
  if (/^(\.|node:)/.test(specifier)) return true
  const name = packageOf(specifier)
  const declared = (wanted) =>
    wanted in (manifest.dependencies ?? {}) || wanted in (manifest.peerDependencies ?? {})
  if (!/\.d\.[cm]?ts$/.test(file)) return declared(name)
  return name in (manifest.dependencies ?? {}) || declared(`@types/${name}`)
}

/**
 * @param {object} manifest
 * @param {Readonly<Record<string, string>>} contents of the package, by file name
 * @returns {string[]}
 */
export function importFaults(manifest, contents) {
  return Object.entries(contents).flatMap(([file, text]) => {
    if (!/\.(c?js|d\.c?ts)$/.test(file)) return []
    const specifiers = ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName)
    const foreign = [...new Set(specifiers)].filter((specifier) => !mayImport(manifest, file, specifier))
    return foreign.map((specifier) => `${file} imports ${specifier}, which its users may not have`)
  })
}

/**
 * @param {object} manifest
 * @param {readonly string[]} files
 * @returns {string[]}
 */
export function contentFaults(manifest, files) {
  const targets =
    JSON.stringify([manifest.exports, manifest.bin, manifest.main]).match(/\.\/dist\/[^"]+/g) ?? []
  // Started by file name, so no export leads to it.
  const thread = './dist/pulse-thread.cjs'
  const missing = [...new Set([...targets, thread])].filter((target) => !files.includes(target.slice(2)))
  const sources = files.filter((file) => /\.map$|\.test\.|(?<!\.d)\.[cm]?ts$/.test(file))
  return [
    ...missing.map((target) => `${target} is not in the package`),
    ...sources.map((file) => `${file} should not be in the package`),
  ]
}

function run(script, ...args) {
  const { status } = spawnSync(process.execPath, [path.join(root, script), ...args], {
    cwd: root,
    stdio: 'inherit',
  })
  return status === 0
}

function judge({ tarball, bytes, files }) {
  const read = (file) => readFileSync(path.join(root, file), 'utf8')
  const manifest = JSON.parse(read('package.json'))
  const contents = Object.fromEntries(files.map((file) => [file, read(file)]))
  const faults = [...importFaults(manifest, contents), ...contentFaults(manifest, files)]
  for (const fault of faults) process.stderr.write(`${fault}\n`)
  process.stdout.write(`${path.basename(tarball)}: ${bytes} bytes, ${files.length} files\n`)
  const types = [tarball, '--profile', 'node16', '--no-definitely-typed']
  return (
    faults.length === 0 &&
    run('node_modules/publint/src/cli.js', 'run', '--strict', tarball) &&
    run('node_modules/@arethetypeswrong/cli/dist/index.js', ...types)
  )
}

function main() {
  // Ended by `npm run check`, with the tools it runs: goes on to remove the folder.
  process.once('SIGTERM', () => {})
  const folder = mkdtempSync(path.join(tmpdir(), 'forge-package-'))
  try {
    const good = run('test/tooling/build.mjs', '--if-stale') && judge(pack(folder))
    process.exitCode = good ? 0 : 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (isMain(import.meta.url)) main()
