import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { gather } from '../../src/cli/facts.js'
import { openStation } from '../../src/cli/station.js'
import { silentLogger } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { call, forge, urlWith } from './command.js'

const empty = useDatabase({ migrated: false })
const database = useDatabase()

interface CheckDocument {
  readonly ok: boolean
  readonly checks: readonly { readonly name: string; readonly state: string; readonly detail: string }[]
}

async function doctor(url: string) {
  const { code, stdout } = await forge(['doctor', '--json', '--database-url', url])
  const { ok, checks } = JSON.parse(stdout) as CheckDocument
  return { code, ok, states: Object.fromEntries(checks.map(({ name, state }) => [name, state])), checks }
}

const schemas = (): Promise<string[]> =>
  empty
    .query<{ name: string }>(
      `select nspname as name from pg_namespace where nspname !~ '^(pg_|information_schema)'`,
    )
    .then((rows) => rows.map(({ name }) => name).sort())

describe('on an empty database', () => {
  it('status says that nothing is migrated, and doctor that it is to be done', async () => {
    const status = await forge(['status'], { DATABASE_URL: empty.url })
    expect(status).toMatchObject({ code: 1, stderr: '' })
    expect(status.stdout).toContain('schema forge is not migrated yet; pending: 0001_')
    expect(status.stdout).toContain('Run forge migrate')
    const { code, ok, states } = await doctor(empty.url)
    expect({ code, ok, states }).toMatchObject({
      code: 1,
      ok: false,
      states: { connection: 'ok', migrations: 'fail' },
    })
    expect(await schemas()).toEqual(['public'])
  })

  it.each(['a"; drop table x; --', 'Forge', 'pg_forge', 'x'.repeat(64), "o'rly", 'ü', '1st', 'a.b'])(
    'a schema named %j is refused and nothing is written',
    async (name) => {
      const ended = await call(['migrate', '--json', '--schema', name, '--database-url', empty.url])
      expect(ended).toMatchObject({ code: 2, stderr: '' })
      expect(JSON.parse(ended.stdout)).toMatchObject({
        ok: false,
        error: { code: 'FORGE_SCHEMA_NAME_INVALID' },
      })
      expect(await schemas()).toEqual(['public'])
    },
  )

  it('a hostile schema in FORGE_SCHEMA is refused just so', async () => {
    const env = { DATABASE_URL: empty.url, FORGE_SCHEMA: 'a"; drop table x; --' }
    const ended = await forge(['migrate'], env)
    expect(ended).toMatchObject({ code: 2, stdout: '' })
    expect(ended.stderr).toContain('FORGE_SCHEMA_NAME_INVALID')
    expect(ended.stderr).toContain('Environment variable FORGE_SCHEMA is')
    expect(await schemas()).toEqual(['public'])
  })

  it('of two migrate at once one applies, and both are content', async () => {
    const args = ['migrate', '--json', '--schema', 'second', '--database-url', empty.url]
    const ended = await Promise.all([forge(args), forge(args)])
    expect(ended.map(({ code, stderr }) => ({ code, stderr }))).toEqual([
      { code: 0, stderr: '' },
      { code: 0, stderr: '' },
    ])
    const applied = ended.map(({ stdout }) => JSON.parse(stdout) as { applied: string[]; version: number })
    expect(applied.map(({ applied: names }) => names.length).sort()).toEqual([0, applied[0]?.version])
  })

  it('migrate --sql shows what is pending and changes nothing; psql would apply it, and then nothing is', async () => {
    const env = { DATABASE_URL: empty.url, FORGE_SCHEMA: 'byhand' }
    const { code, stdout } = await forge(['migrate', '--sql'], env)
    expect(code).toBe(0)
    expect(await schemas()).not.toContain('byhand')
    await empty.query(stdout)
    const after = await forge(['migrate', '--sql'], env)
    expect([after.code, after.stdout]).toEqual([0, '-- schema byhand: nothing to do\n'])
    expect((await forge(['migrate'], env)).stdout).toContain('nothing to do; it is at version')
    await empty.query('drop schema byhand cascade')
  })

  it('migrate says what it applied, then that there is nothing to do', async () => {
    const env = { DATABASE_URL: empty.url }
    const first = await forge(['migrate'], env)
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toMatch(/^schema forge: applied 0001_\w+, .*; it is at version \d+\n$/)
    const second = await forge(['migrate'], env)
    expect(second).toMatchObject({ code: 0, stderr: '' })
    expect(second.stdout).toMatch(/^schema forge: nothing to do; it is at version \d+\n$/)
    expect(await schemas()).toEqual(['forge', 'public', 'second'])
  })
})

describe('on a migrated database', () => {
  it('status and doctor show a node that lives, its jobs and its queues', async () => {
    const { forge: instance, attach } = setup(database)
    const job = instance.job('cli.shown', { queue: 'cli', run: () => 'done' })
    await using node = await attach()
    await (await job.enqueue()).result()
    await job.enqueue(undefined, { delay: '1h' })
    const { code, stdout } = await forge(['status', '--json'], { DATABASE_URL: database.url })
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      ok: true,
      schema: 'forge',
      pending: [],
      nodes: [{ id: node.id, pid: process.pid, state: 'active', roles: node.roles }],
      jobs: { completed: 1, scheduled: 1, running: 0, estimated: [] },
      queues: [{ queue: 'cli', available: 0, running: 0, waiting: 1 }],
    })
    const text = await forge(['status'], { DATABASE_URL: database.url })
    for (const word of [node.id, 'completed', 'cli']) expect(text.stdout).toContain(word)
    expect(await doctor(database.url)).toMatchObject({
      code: 0,
      ok: true,
      states: {
        connection: 'ok',
        server: 'ok',
        pooler: 'ok',
        migrations: 'ok',
        privileges: 'ok',
        clock: 'ok',
        listen: 'ok',
        partitions: 'ok',
        transactions: 'ok',
      },
    })
  })

  it('nodes, leaders and drain show the cluster and take a node out', async () => {
    const env = { DATABASE_URL: database.url }
    const none = await forge(['leaders'], env)
    expect(none).toMatchObject({ code: 0, stdout: 'nobody leads anything\n' })
    const { attach } = setup(database)
    await using node = await attach({ roles: ['worker'] })
    node.whileLeading(
      'cli',
      ({ signal }) => new Promise((done) => signal.addEventListener('abort', () => done())),
    )
    await until(async () => (await node.cluster.leader('cli')) !== null, { label: 'leads' })
    const leaders = await forge(['leaders', '--json'], env)
    expect(JSON.parse(leaders.stdout)).toMatchObject({
      ok: true,
      leaders: expect.arrayContaining([
        expect.objectContaining({ role: 'cli', node: node.id, pid: process.pid, locked: true }),
      ]) as unknown,
    })
    expect((await forge(['leaders'], env)).stdout).toContain('lock and term')
    expect((await forge(['nodes'], env)).stdout).toContain(node.id)
    const drained = await forge(['drain', node.id], env)
    expect(drained).toMatchObject({ code: 0, stdout: `node ${node.id} takes nothing new from now on\n` })
    await until(async () => !(await node.health()).ready, { label: 'not ready' })
    const gone = await forge(['drain', randomUUID()], env)
    expect(gone.code).toBe(1)
    expect(gone.stdout).toContain('no living node')
    for (const args of [['drain'], ['drain', 'x'], ['drain', node.id, node.id], ['nodes', 'x']])
      expect((await forge(args, env)).code).toBe(2)
  })

  it('nothing that is stored steers the terminal', async () => {
    await database.query(
      `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until)
       values (gen_random_uuid(), gen_random_uuid(), 'active', e'evil\\x1b[2J\\nhost\\u202e', 1, '0', '{}', '{}', now())`,
    )
    const { stdout, code } = await forge(['status'], { DATABASE_URL: database.url })
    await database.query(`delete from forge.node where host like 'evil%'`)
    expect(code).toBe(0)
    expect(stdout).toContain('evil\uFFFD[2J\uFFFDhost\uFFFD')
  })

  it('a role without grants is told what it lacks, and each missing grant by name', async () => {
    const role = `forge_cli_${process.pid}`
    await database.query(`create role ${role} login password 'cli-pw-5521'`)
    const url = urlWith(database.url, { username: role, password: 'cli-pw-5521' })
    const status = await forge(['status'], { DATABASE_URL: url })
    expect(status).toMatchObject({ code: 1, stdout: '' })
    expect(status.stderr).toContain('docs/privileges.md')
    expect(await doctor(url)).toMatchObject({ code: 1, states: { migrations: 'fail', privileges: 'fail' } })
    await database.query(`grant usage on schema forge to ${role}`)
    await database.query(`grant select, insert, delete on all tables in schema forge to ${role}`)
    const { checks } = await doctor(url)
    const privileges = checks.find(({ name }) => name === 'privileges')
    expect(privileges?.detail).toContain('update on job;')
    expect(privileges?.detail).toContain('execute on forge.job_history_prune()')
    expect(privileges?.detail).not.toContain('migration')
    await database.query(`drop owned by ${role}`)
    await database.query(`drop role ${role}`)
  })

  it('doctor sees the transaction that holds everything up, and who it is', async () => {
    const client = await database.pool({ application_name: 'the report' }).connect()
    await client.query('begin isolation level repeatable read')
    await client.query('select 1')
    const station = openStation({ databaseUrl: database.url, schema: undefined, logger: silentLogger })
    const { oldest } = await gather(station)
    await station.close()
    await client.query('rollback')
    client.release()
    expect(oldest).toMatchObject({ who: expect.stringContaining('the report'), state: 'idle in transaction' })
  })
})

describe('on a schema of other code', () => {
  it('status and migrate warn of a newer schema that allows this code, and refuse one that does not', async () => {
    const ledger = `insert into second.migration (version, name, checksum, requires)`
    await call(['migrate', '--schema', 'second', '--database-url', empty.url])
    const args = ['--schema', 'second', '--database-url', empty.url]
    await empty.query(`${ledger} values (900, 'later', 'x', 1)`)
    const migrate = await forge(['migrate', ...args])
    expect(migrate).toMatchObject({ code: 0, stdout: 'schema second: nothing to do; it is at version 900\n' })
    expect(migrate.stderr).toContain('newer than this code')
    await empty.query(`${ledger} values (901, 'breaking', 'x', 901)`)
    for (const command of ['migrate', 'status']) {
      const ended = await forge([command, ...args])
      expect(ended).toMatchObject({ code: 1, stdout: '' })
      expect(ended.stderr).toContain('FORGE_SCHEMA_TOO_NEW')
    }
    const doctored = await forge(['doctor', ...args])
    expect(doctored.code).toBe(1)
    expect(doctored.stdout).toContain('needs code of at least 901')
  })
})
