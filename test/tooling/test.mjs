/*
 * `npm test [-- filter …]`, on a fresh clone too: installs and builds what is missing, runs the suite, then the folders that
 * touch the database once more: the jobs under a role without DDL, all on the oldest PostgreSQL that is supported. One line
 * closes, with the sum of all.
 * A filter, or a database of the caller's in TEST_DATABASE_URL, runs once. Needs nothing but Node and npm.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { install, root, toolNode } from './install.mjs'

const oldestPostgres = '15'
const databaseFolders = ['test/database', 'test/cluster', 'test/jobs', 'test/forge', 'test/cli', 'test/docs']

const args = process.argv.slice(2)
const scratch = mkdtempSync(path.join(tmpdir(), 'forge-counts-'))
const countsFile = path.join(scratch, 'counts')

function runTool(script, scriptArgs, env = {}) {
  const { status } = spawnSync(toolNode, [path.join(root, script), ...scriptArgs], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  return status === 0
}

/** @returns the counts of one run; a run that ended without counts, or badly without a failed test, is one failure */
function runSuite(title, filters, env = {}) {
  process.stdout.write(`\n${title}\n`)
  rmSync(countsFile, { force: true })
  const options = ['run', '--config', 'test/vitest.config.ts', ...filters]
  const good = runTool('node_modules/vitest/vitest.mjs', options, { ...env, FORGE_TEST_COUNTS: countsFile })
  const counts = existsSync(countsFile)
    ? JSON.parse(readFileSync(countsFile, 'utf8'))
    : { passed: 0, failed: 0, skipped: 0 }
  if (!good && counts.failed === 0) counts.failed = 1
  return counts
}

function hasTests(place) {
  const folder = path.join(root, path.dirname(place))
  return readdirSync(folder).some((name) => `${path.dirname(place)}/${name}`.startsWith(place))
}

function runAll() {
  install()
  if (!runTool('test/tooling/build.mjs', ['--if-stale'])) {
    process.stdout.write('The build failed; the tests of the packed package cannot pass.\n')
  }
  const runs = [runSuite(args.length > 0 ? 'Chosen tests' : 'All tests', args)]
  const once = args.length > 0 || process.env.TEST_DATABASE_URL || process.env.FORGE_TEST_PG
  const folders = databaseFolders.filter(hasTests)
  if (!once && folders.length > 0) {
    runs.push(
      runSuite('The jobs once more, under the runtime role', ['test/jobs'], { FORGE_TEST_ROLE: 'runtime' }),
    )
    runs.push(
      runSuite(`The database once more, PostgreSQL ${oldestPostgres}`, folders, {
        FORGE_TEST_PG: oldestPostgres,
      }),
    )
  }
  return runs
}

try {
  const runs = runAll()
  const sum = (key) => runs.reduce((total, run) => total + run[key], 0)
  const skipped = sum('skipped') > 0 ? `, ${sum('skipped')} skipped` : ''
  process.stdout.write(`\n${sum('passed')} passed, ${sum('failed')} failed${skipped}\n`)
  process.exitCode = sum('failed') > 0 ? 1 : 0
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
