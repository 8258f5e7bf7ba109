import { expect, it } from 'vitest'
import { ClientSource } from '../../src/database/index.js'
import { useDatabase } from '../support/database.js'

const database = useDatabase()

it("keeps forge's own name and deadlines over those in the pool's connection string", async () => {
  const url = new URL(database.url)
  url.search = '?application_name=shop&statement_timeout=1&connect_timeout=1&options=-c%20geqo%3Doff'
  const source = new ClientSource(database.pool({ connectionString: url.href }))
  const client = await source.connect('forge:test', { statementMs: 5_000, lockMs: 1_000 })
  const { rows } = await client.query<Record<string, string>>(
    `select current_setting('application_name') as name, current_setting('statement_timeout') as ms,
            current_setting('geqo') as geqo`,
  )
  await client.end()
  expect(rows[0]).toEqual({ name: 'forge:test', ms: '5s', geqo: 'off' })
  expect(source.config('forge:listen').connectionString).not.toContain('shop')
})

it('lifts the limit of a whole transaction that a role may carry, where the server knows one', async () => {
  const [server] = await database.query<{ version: number }>(
    `select current_setting('server_version_num')::int as version`,
  )
  if ((server?.version ?? 0) < 170_000) return
  const source = new ClientSource(database.pool({ options: '-c transaction_timeout=5s' }))
  const client = await source.connect('forge:test', { statementMs: 5_000, lockMs: 1_000 })
  const { rows } = await client.query<{ limit: string }>(
    `select current_setting('transaction_timeout') as limit`,
  )
  await client.end()
  expect(rows[0]?.limit).toBe('0')
})
