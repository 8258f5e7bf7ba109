import { describe, expect, onTestFinished, test } from 'vitest'
import { codeVersion } from '../../src/database/index.js'
import { lockMigrations } from '../../src/database/queries.js'
import { spawnNode } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { carrying, migrator, remains, versions } from './migrate-kit.js'

const database = useDatabase({ migrated: false })

const allVersions = Array.from({ length: codeVersion }, (_, index) => index + 1)

/** How many backends wait for a lock of this kind, and their numbers. */
async function waiting(kind: 'advisory' | 'relation'): Promise<number[]> {
  const rows = await database.query<{ pid: number }>(
    `SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE NOT l.granted AND l.locktype = $1 AND a.datname = current_database()`,
    [kind],
  )
  return rows.map(({ pid }) => pid)
}

/** The number of the backend that sleeps in the middle of a migration. */
function sleeper(): Promise<number> {
  return until(
    async () => {
      const rows = await database.query<{ pid: number }>(
        `SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'forge:migrate' AND wait_event = 'PgSleep'`,
      )
      return rows[0]?.pid ?? 0
    },
    { label: 'a migration sleeps' },
  )
}

describe('many at once on an empty database', () => {
  test('one of twelve applies, all succeed', async () => {
    const since = performance.now()
    const reports = await Promise.all(
      Array.from({ length: 12 }, () => migrator(database, { schema: 'crowd' }).migrate()),
    )
    expect(performance.now() - since).toBeLessThan(25_000)
    expect(reports.map(({ version }) => version)).toEqual(Array(12).fill(codeVersion))
    expect(reports.filter(({ applied }) => applied.length > 0)).toHaveLength(1)
    expect(reports.find(({ applied }) => applied.length > 0)?.applied).toHaveLength(codeVersion)
    expect(reports.every(({ pending }) => pending.length === 0)).toBe(true)
    expect(await versions(database, 'crowd')).toEqual(allVersions)
  })

  test('one of four processes applies, all succeed', async () => {
    const gate = await database.pool({ max: 1 }).connect()
    onTestFinished(() => gate.release())
    await gate.query('BEGIN')
    await gate.query(lockMigrations.text('"processes"'))
    const processes = Array.from({ length: 4 }, () =>
      spawnNode({
        script: new URL('./fixtures/migrating.ts', import.meta.url),
        args: [database.url, 'processes'],
        execArgv: ['--import', new URL('../support/typescript.mjs', import.meta.url).href],
      }),
    )
    onTestFinished(async () => void (await Promise.all(processes.map((process) => process.stop()))))
    await until(async () => (await waiting('advisory')).length === 4, {
      deadlineMs: 30_000,
      label: 'all four wait',
    })
    await gate.query('COMMIT')
    const exits = await Promise.all(processes.map((process) => process.exited))
    expect(exits).toEqual(Array(4).fill({ code: 0, signal: null }))
    const reports = processes.map(
      ({ stdout }) => JSON.parse(stdout) as { version: number; applied: string[] },
    )
    expect(reports.map(({ version }) => version)).toEqual(Array(4).fill(codeVersion))
    expect(reports.map(({ applied }) => applied.length).sort((a, b) => a - b)).toEqual([0, 0, 0, codeVersion])
    expect(await versions(database, 'processes')).toEqual(allVersions)
  })
})

describe('half-way', () => {
  test('a backend that is killed leaves nothing, and the next run does it all', async () => {
    const steps = ['create table a (id int)', 'create table b (id int); select pg_sleep(60)']
    const killed = migrator(database, { schema: 'killed', carried: carrying(...steps) }).migrate()
    const lost = expect(killed).rejects.toMatchObject({ code: 'FORGE_CONNECTION_LOST' })
    await database.query('SELECT pg_terminate_backend($1)', [await sleeper()])
    await lost
    expect(await remains(database, 'killed')).toBeNull()
    const again = migrator(database, { schema: 'killed', carried: carrying('create table a (id int)', 'create table b (id int)') }) // prettier-ignore
    expect(await again.migrate()).toEqual({ version: 2, applied: ['0001_step1', '0002_step2'], pending: [] })
  })

  test('those that wait for one that is killed do it instead', async () => {
    const sleeping = carrying('create table a (id int)', 'select pg_sleep(60)')
    const first = migrator(database, { schema: 'heirs', carried: sleeping }).migrate()
    const lost = expect(first).rejects.toMatchObject({ code: 'FORGE_CONNECTION_LOST' })
    const pid = await sleeper()
    const carried = carrying('create table a (id int)', 'select 1')
    const heirs = Array.from({ length: 3 }, () => migrator(database, { schema: 'heirs', carried }).migrate())
    await until(async () => (await waiting('advisory')).length === 3, { label: 'the heirs wait' })
    await database.query('SELECT pg_terminate_backend($1)', [pid])
    await lost
    const reports = await Promise.all(heirs)
    expect(reports.map(({ applied }) => applied.length).sort()).toEqual([0, 0, 2])
  })

  test('a migration that fails takes those before it back, and says what was wrong', async () => {
    const carried = carrying('create table a (id int)', 'create table a (id int)')
    const failing = migrator(database, { schema: 'failing', carried }).migrate()
    await expect(failing).rejects.toMatchObject({
      code: 'FORGE_MIGRATION_FAILED',
      message: expect.stringContaining('relation "a" already exists.'),
      cause: { code: '42P07' },
    })
    expect(await remains(database, 'failing')).toBeNull()
  })
})

describe('code and schema of different age', () => {
  const [one, two] = ['create table a (id int)', 'create table b (id int)']
  const old = carrying(one, two)

  test('code that the schema does not allow any more refuses within a second, and writes nothing', async () => {
    const carried = carrying(one, two, { sql: 'create table c (id int)', requires: 3 })
    await migrator(database, { schema: 'newer', carried }).migrate()
    const before = await remains(database, 'newer')
    for (const call of ['migrate', 'status'] as const) {
      const since = performance.now()
      const refused = migrator(database, { schema: 'newer', carried: old })[call]()
      await expect(refused).rejects.toMatchObject({
        code: 'FORGE_SCHEMA_TOO_NEW',
        message: expect.stringContaining('The schema is at 3 and needs code of at least 3; this is 2.'),
      })
      expect(performance.now() - since).toBeLessThan(1_000)
    }
    expect(await remains(database, 'newer')).toEqual(before)
  })

  test('older code that the schema allows works, and says so', async () => {
    const carried = carrying(one, two, { sql: 'create table c (id int)', requires: 2 })
    await migrator(database, { schema: 'allowing', carried }).migrate()
    const before = await remains(database, 'allowing')
    const { migrate, heard } = migrator(database, { schema: 'allowing', carried: old })
    expect(await migrate()).toEqual({ version: 3, applied: [], pending: [] })
    expect(heard).toEqual([expect.stringContaining("the schema is at 3, newer than this code's 2")])
    expect(await remains(database, 'allowing')).toEqual(before)
  })

  test('newer code applies what is missing, and only that', async () => {
    await migrator(database, { schema: 'growing', carried: old }).migrate()
    const carried = carrying(one, two, 'create table c (id int)')
    const grown = migrator(database, { schema: 'growing', carried })
    expect(await grown.status()).toEqual({ version: 2, applied: [], pending: ['0003_step3'] })
    expect(await grown.migrate()).toEqual({ version: 3, applied: ['0003_step3'], pending: [] })
    expect(await versions(database, 'growing')).toEqual([1, 2, 3])
  })

  test('a migration that was changed after it was applied is refused, unless checksums do not count', async () => {
    await migrator(database, { schema: 'changed', carried: old }).migrate()
    const before = await remains(database, 'changed')
    const carried = carrying(one, `${two} -- changed`)
    for (const call of ['migrate', 'status'] as const) {
      await expect(migrator(database, { schema: 'changed', carried })[call]()).rejects.toMatchObject({
        code: 'FORGE_MIGRATION_CHANGED',
        message: expect.stringMatching(/^0002_step2\. /),
      })
    }
    const lenient = migrator(database, { schema: 'changed', carried, checksums: false })
    expect(await lenient.status()).toEqual({ version: 2, applied: [], pending: [] })
    expect(await remains(database, 'changed')).toEqual(before)
  })

  test('asking for the state of an empty database writes nothing', async () => {
    const { status, source } = migrator(database, { schema: 'asked' })
    const { version, pending } = await status()
    expect([version, pending.length]).toEqual([0, codeVersion])
    expect(await remains(database, 'asked')).toBeNull()
    expect(source.openCount).toBe(0)
  })
})
