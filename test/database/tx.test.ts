import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { checkTx, onCommit, transact, type Tx } from '../../src/database/index.js'
import { systemClock } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'

const database = useDatabase({ migrated: false })

function refusal(tx: unknown): string {
  try {
    checkTx(tx)
  } catch (error) {
    return (error as { code: string }).code
  }
  return 'accepted'
}

async function client(): Promise<pg.Client> {
  const made = new pg.Client({ connectionString: database.url })
  await made.connect()
  onTestFinished(() => made.end())
  return made
}

describe('a transaction of the caller', () => {
  test('is a client between BEGIN and COMMIT', async () => {
    const tx = await client()
    await tx.query('BEGIN')
    expect(checkTx(tx)).toBe(tx)
    await tx.query('SELECT 1')
    expect(refusal(tx)).toBe('accepted')
  })

  test('is no client before BEGIN, after COMMIT or after ROLLBACK', async () => {
    const tx = await client()
    expect(refusal(tx)).toBe('FORGE_TX_FINISHED')
    for (const end of ['COMMIT', 'ROLLBACK']) {
      await tx.query('BEGIN')
      await tx.query(end)
      expect(refusal(tx)).toBe('FORGE_TX_FINISHED')
    }
  })

  test('is no client whose transaction failed', async () => {
    const tx = await client()
    await tx.query('BEGIN')
    await tx.query('SELECT 1/0').catch(() => {})
    // The driver learns of the state with the server's next message, which may come a moment after the error.
    await until(() => refusal(tx) === 'FORGE_TX_FINISHED', { label: 'the driver knows' })
    await tx.query('ROLLBACK')
  })

  test('is no client that never connected', () => {
    expect(refusal(new pg.Client())).toBe('FORGE_TX_FINISHED')
  })

  test('is no client that was released to its pool', async () => {
    const tx = await database.pool().connect()
    await tx.query('BEGIN')
    expect(refusal(tx)).toBe('accepted')
    await tx.query('COMMIT')
    tx.release()
    expect(refusal(tx)).toBe('FORGE_TX_FINISHED')
  })

  test('is no pool, of this or another copy of pg', async () => {
    const pool = database.pool()
    await pool.query('SELECT 1')
    expect(refusal(pool)).toBe('FORGE_TX_IS_POOL')
    expect(refusal({ query: () => {}, connect: () => {}, totalCount: 0 })).toBe('FORGE_TX_IS_POOL')
  })

  test('is an adapter of another library, about which the driver says nothing', () => {
    const query = () => Promise.resolve({ rows: [] })
    expect(refusal({ query })).toBe('accepted')
    expect(refusal({ query, connect: () => {} })).toBe('accepted')
  })

  test.each<[what: string, tx: unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['text', 'BEGIN'],
    ['true', true],
    ['an empty object', {}],
    ['a function', () => {}],
    ['a connection string', 'postgres://u@h/d'],
    ['a query that is text', { query: 'select 1' }],
    ['a list of clients', [{ query: () => {} }]],
  ])('is not %s', (_, tx) => {
    expect(refusal(tx)).toBe('FORGE_TX_INVALID')
  })
})

describe('a transaction of forge’s own', () => {
  test('is good until it ends', async () => {
    const pool = database.pool()
    const kept = await transact({ pool, clock: systemClock }, async (tx) => {
      expect(refusal(tx)).toBe('accepted')
      return tx
    })
    expect(refusal(kept)).toBe('FORGE_TX_FINISHED')
    await expect(kept.query('SELECT 1')).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
  })

  test('is the only one whose commit can be waited for', async () => {
    const foreign: Tx = { query: () => Promise.resolve({ rows: [] }) }
    expect(onCommit(foreign, () => {})).toBe(false)
    const pool = database.pool()
    const told: string[] = []
    const known = await transact({ pool, clock: systemClock }, async (tx) =>
      onCommit(tx, () => told.push('done')),
    )
    expect(known).toBe(true)
    expect(told).toEqual(['done'])
  })
})
