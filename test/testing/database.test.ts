import pg from 'pg'
import { expect, it } from 'vitest'
import { createForge } from '../../src/index.js'
import { startTestDatabase, testForge } from '../../src/testing/index.js'
import { rejection } from './test-forge-kit.js'

it('gives an empty server with the settings that were asked for, and takes it away again', async () => {
  const database = await startTestDatabase({ maxConnections: 30, settings: { log_statement: 'none' } })
  const pool = new pg.Pool({ connectionString: database.url })
  const { rows } = await pool.query(
    `select current_setting('fsync') as fsync, current_setting('max_connections') as n`,
  )
  expect(rows).toEqual([{ fsync: 'off', n: '30' }])
  const forge = createForge()
  const job = forge.job('there', { run: () => null })
  await using t = await testForge(forge, pool)
  await job.enqueue()
  expect(await t.drain()).toMatchObject({ completed: 1 })
  await t.stop()
  await pool.end()
  await database.stop()
  const late = new pg.Client({ connectionString: database.url })
  expect(await rejection(late.connect())).toMatchObject({ code: 'ECONNREFUSED' })
})

it.each<[unknown, string]>([
  [{ packageName: 'embedded-postgres-that-is-not-there' }, 'FORGE_EMBEDDED_MISSING'],
  [{ maxConnection: 7 }, 'FORGE_OPTION_UNKNOWN'],
  [{ maxConnections: 1 }, 'FORGE_OPTION_INVALID'],
])('refuses %o', async (options, code) => {
  expect(await rejection(startTestDatabase(options as never))).toMatchObject({ code })
})
