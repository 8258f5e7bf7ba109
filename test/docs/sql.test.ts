import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type pg from 'pg'
import { createForge, type ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { blocks, page, tableRows } from './pages.js'

const database = useDatabase()
const role = `shop_web_${randomBytes(4).toString('hex')}`
const text = page('docs/sql.md')
const migration = page('migrations/0004_enqueue.sql')
let node: ForgeNode
let client: pg.PoolClient

beforeAll(async () => {
  const forge = createForge()
  const run = () => null
  forge.job('mail.welcome', { run })
  forge.job('order.index', { run })
  forge.job('report.build', { unique: { by: (input: { customer: string }) => input.customer }, run })
  node = await forge.attach(null, database.pool(), { roles: ['gateway'], logger: false })
  await database.query(`
    create role ${role};
    create table customer (id bigint generated always as identity primary key, welcomed_at timestamptz);
    create table orders (id bigint generated always as identity primary key);
    grant all on customer, orders to ${role}; grant create on schema public to ${role}; grant usage on schema public to ${role}`)
  await database.query(`insert into customer default values; insert into customer default values`)
  for (const sql of blocks(text, 'sql privileges')) await database.query(sql.replaceAll('shop_web', role))
  client = await database.pool({ max: 1 }).connect()
  await database.query(`alter table customer owner to ${role}; alter table orders owner to ${role}`)
  await client.query(`set role ${role}`)
})

afterAll(async () => {
  client.release(true)
  await node.stop()
  await database.query(`drop owned by ${role} cascade; drop role ${role}`)
})

const names = async (): Promise<Record<string, number>> => {
  const rows = await database.query<{ name: string; n: number }>(
    'select name, count(*)::int as n from forge.job join forge.job_lane l on l.id = lane group by name',
  )
  return Object.fromEntries(rows.map(({ name, n }) => [name, n]))
}

it('runs every example of the page, as a role that may do nothing else', async () => {
  const examples = blocks(text, 'sql')
  expect(examples.length).toBeGreaterThanOrEqual(8)
  for (const sql of examples) await client.query(sql)
  expect(await names()).toEqual({ 'mail.welcome': 7, 'report.build': 1 })
  await client.query('insert into customer default values')
  await client.query('insert into orders select from generate_series(1, 3)')
  expect(await names()).toEqual({ 'mail.welcome': 8, 'report.build': 1, 'order.index': 3 })
  await expect(client.query('select from forge.job')).rejects.toMatchObject({ code: '42501' })
})

it('the statements of the Python example do what it says', async () => {
  const [python] = blocks(text, 'python') as [string]
  const statements = [...python.matchAll(/"(select [^"]*)"/g)].map(([, sql]) => sql as string)
  const values = [
    ['report.build', { customer: '43' }, '43'],
    ['mail.welcome', JSON.stringify([{ userId: '1' }, { userId: '2' }])],
  ]
  const answers = []
  for (const [at, sql] of statements.entries()) {
    let n = 0
    const numbered = sql.replaceAll('%s', () => `$${++n}`)
    answers.push((await client.query<Record<string, string>>(numbered, values[at])).rows.length)
  }
  expect(answers).toEqual([1, 2])
})

it('has a row for each SQLSTATE that is raised', () => {
  const raised = [...new Set(migration.match(/ZF\d{3}/g))].sort()
  const listed = tableRows(text, 'What is refused').map(([cell]) => cell?.replaceAll('`', ''))
  expect(listed).toEqual(raised)
})
