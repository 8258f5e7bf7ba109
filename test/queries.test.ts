import { globSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { quoteSchema, type Statement, statement } from '../src/database/index.js'
import { useDatabase } from './support/database.js'

const database = useDatabase()
const root = fileURLToPath(new URL('..', import.meta.url))
const files = globSync(['src/**/queries.ts', 'src/**/queries/*.ts'], { cwd: root }).sort()

let client: pg.PoolClient
beforeAll(async () => {
  client = await database.pool({ max: 1 }).connect()
})
afterAll(() => client.release())

function isStatement(value: unknown): value is Statement {
  const { name, text } = (value ?? {}) as { name?: unknown; text?: unknown }
  return typeof value === 'object' && typeof name === 'string' && typeof text === 'function'
}

async function statementsOf(file: string): Promise<Statement[]> {
  const module = (await import(`${root}${file}`)) as Record<string, unknown>
  return Object.values(module).filter(isStatement)
}

/** What can be prepared is; the rest (several statements, SET) is run in a transaction that is rolled back. */
async function prove({ name, text }: Statement): Promise<void> {
  const sql = text(quoteSchema('forge')).trim()
  const one = /^(select|insert|update|delete|with)\b/i.test(sql)
  if (one) return void (await client.query(`PREPARE ${name} AS ${sql}`))
  // Asked for rows it has none, and gives up: it got that far.
  if (/^copy\b/i.test(sql)) return expect(client.query(sql)).rejects.toMatchObject({ code: '57014' })
  await client.query('BEGIN')
  try {
    await client.query(sql)
  } finally {
    await client.query('ROLLBACK')
  }
}

const found = (await Promise.all(files.map(statementsOf))).flat()

test('statements stand in several rooms, each under a name of its own that PostgreSQL does not cut', () => {
  expect(files).toEqual(expect.arrayContaining(['src/database/queries.ts', 'src/jobs/queries/claim.ts']))
  expect(found.length).toBeGreaterThan(40)
  const names = found.map(({ name }) => name)
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([])
  for (const name of names) {
    expect(name).toMatch(/^forge_[a-z_]+$/)
    expect(Buffer.byteLength(name), name).toBeLessThanOrEqual(63)
  }
})

test.each(found.map((each) => [each.name, each] as const))('%s fits the migrated schema', async (_, each) => {
  await prove(each)
})

test('no statement names another schema than the one it is given', () => {
  for (const { name, text } of found) expect(text('"other"'), name).not.toMatch(/\bforge\s*\./)
})

test('a statement that does not fit is found out', async () => {
  for (const text of [
    'select dew from forge.job',
    'select forge.no_such_function()',
    'set no_such_setting = 1',
  ]) {
    const wrong = statement('test_wrong', () => text)
    await expect(prove(wrong)).rejects.toMatchObject({ code: expect.stringMatching(/^42/) })
  }
})
