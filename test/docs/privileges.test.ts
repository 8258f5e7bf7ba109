import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type pg from 'pg'
import { createForge } from '../../src/index.js'
import { call, urlWith } from '../cli/command.js'
import { markClaimed } from '../support/claimed.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { blocks, page } from './pages.js'

const database = useDatabase({ migrated: false })
const mark = randomBytes(4).toString('hex')
const owner = `shop_owner_${mark}`
const app = `shop_app_${mark}`
const password = `pw-${mark}`
const text = page('docs/privileges.md')

/** The SQL of the page, with the names of this test. */
function sqlOf(words: string): string {
  const found = blocks(text, words)
  if (found.length !== 1) throw new Error(`The page has ${found.length} blocks '${words}'.`)
  const named = (found[0] as string).replaceAll('shop_owner', owner).replaceAll('shop_app', app)
  return named.replaceAll('database shop ', `database ${database.name} `)
}

const urlOf = (username: string): string => urlWith(database.url, { username, password })
let owned: pg.Pool
let pool: pg.Pool

beforeAll(async () => {
  await database.query(sqlOf('sql'))
  for (const role of [owner, app]) await database.query(`alter role ${role} password '${password}'`)
  owned = database.pool({ connectionString: urlOf(owner) })
  pool = database.pool({ connectionString: urlOf(app) })
  expect(await call(['migrate', '--database-url', urlOf(owner)])).toMatchObject({ code: 0 })
  await owned.query(sqlOf('sql runtime'))
  await owned.query(sqlOf('sql defaults'))
})

afterAll(async () => {
  for (const role of [app, owner]) {
    await database.query(`drop owned by ${role} cascade`)
    await database.query(`drop role ${role}`)
  }
})

function setup() {
  const forge = createForge()
  const work = forge.job('work', {
    retry: { base: '10ms' },
    run: (input: { fails?: boolean }, job) => {
      if (input.fails && job.attempt === 1) throw new Error('not yet')
      return { attempt: job.attempt }
    },
  })
  const attach = () => forge.attach(null, pool, { roles: ['worker'], logger: false })
  return { work, attach }
}

const partitions = async (): Promise<string[]> => {
  const rows = await owned.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'forge'::regnamespace and relispartition and relkind = 'r'`,
  )
  return rows.rows.map(({ name }) => name)
}

describe('a role with exactly what the page grants', () => {
  it('attaches with migrate auto, enqueues, retries, and works in its own transactions', async () => {
    const { work, attach } = setup()
    await using node = await attach()
    expect(await (await work.enqueue({})).result()).toEqual({ attempt: 1 })
    expect(await (await work.enqueue({ fails: true })).result()).toEqual({ attempt: 2 })
    const inTx = await node.transaction((tx) => work.enqueue({}, { tx }))
    expect(await inTx.result()).toEqual({ attempt: 1 })
    const later = await work.enqueue({}, { delay: '1h' })
    expect(await node.jobs.cancel(later.id)).toMatchObject({ ids: [later.id] })
    expect(await node.jobs.retry(later.id)).toMatchObject({ ids: [later.id] })
    expect(await later.result()).toEqual({ attempt: 1 })
    expect(await node.jobs.counts()).toMatchObject({ completed: 4 })
    expect(await node.jobs.list({ name: 'work' })).toHaveLength(4)
  })

  it('makes and drops partitions, and takes back what a lost node was running', async () => {
    const made = await partitions()
    expect(made.length).toBeGreaterThan(8)
    const [gone] = made
    await owned.query(`drop table forge.${gone}`)
    await owned.query(
      `create table forge.job_history_20200101 partition of forge.job_history for values from ('2020-01-01') to ('2020-01-02')`,
    )
    const { work, attach } = setup()
    const first = await attach()
    const handle = await work.enqueue({}, { delay: '1h' })
    await first.stop()
    await markClaimed(owned, [handle.id])
    await using node = await attach()
    await until(async () => (await node.jobs.get(handle.id))?.state === 'completed', {
      label: 'the lost job is taken back and done',
    })
    expect(await node.jobs.get(handle.id)).toMatchObject({ crashes: 1, attempt: 1 })
    expect(await partitions()).toContain(gone)
    await until(async () => !(await partitions()).includes('job_history_20200101'), {
      label: 'whoever leads maintenance has dropped the one whose day is over',
    })
  })

  it('is found right by the doctor', async () => {
    await using _node = await setup().attach()
    const { code, stdout } = await call(['doctor', '--json', '--database-url', urlOf(app)])
    const { checks } = JSON.parse(stdout) as { checks: { name: string; state: string; detail: string }[] }
    expect(checks.filter(({ state }) => state === 'fail')).toEqual([])
    expect(checks.find(({ name }) => name === 'privileges')).toMatchObject({ state: 'ok' })
    expect(code).toBe(0)
  })

  it.each([
    'create table forge.mine (id int)',
    'create schema mine',
    'drop table forge.job_tally',
    'alter table forge.job add column mine int',
    'update forge.migration set requires = 0',
    'delete from forge.migration',
    `create table forge.part partition of forge.job_history for values from ('2090-01-01') to ('2090-01-02')`,
  ])('cannot do what it has no need of: %s', async (sql) => {
    await expect(pool.query(sql)).rejects.toMatchObject({ code: '42501' })
  })

  it('cannot make or drop partitions outside of what the functions are for', async () => {
    await expect(pool.query(`select forge.job_history_partition('2020-01-01')`)).rejects.toMatchObject({
      code: '22023',
    })
    expect((await pool.query('select forge.job_history_prune() as dropped')).rows).toEqual([
      { dropped: null },
    ])
  })

  it('has the tables of a later migration without another grant', async () => {
    await owned.query('create table forge.later (id int)')
    await expect(pool.query('select from forge.later')).resolves.toBeDefined()
    await owned.query('drop table forge.later')
  })

  it.each([
    ['auto', 'FORGE_MIGRATION_DENIED'],
    ['check', 'FORGE_MIGRATION_PENDING'],
  ] as const)('is refused with migrate %s while a migration is pending', async (migrate, code) => {
    const last = '(select max(version) from forge.migration)'
    const { rows } = await owned.query<Record<string, unknown>>(
      `delete from forge.migration where version = ${last} returning *`,
    )
    const attaching = createForge().attach(null, pool, { migrate, logger: false })
    await expect(attaching).rejects.toMatchObject({ code })
    await owned.query(
      'insert into forge.migration select * from json_populate_recordset(null::forge.migration, $1)',
      [JSON.stringify(rows)],
    )
  })
})
