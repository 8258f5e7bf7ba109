import { describe, expect, it } from 'vitest'
import { Maintenance } from '../../src/cluster/index.js'
import { Watchdog } from '../../src/cluster/watchdog.js'
import { resolveOptions } from '../../src/kernel/index.js'
import { optionTable } from '../../src/options.js'
import { createRuntime } from '../../src/runtime/index.js'
import { useDatabase } from '../support/database.js'
import { listeningLogger, setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }

function runtimeOf() {
  const { logger, heard } = listeningLogger()
  const parts = createRuntime(database.pool(), resolveOptions(optionTable, { logger }, {}))
  return { ...parts, heard }
}

describe('maintenance', () => {
  it('is led by one node, which does what is due at once, and by the next when it stops', async () => {
    const first = await setup(database).attach({ lease })
    await until(async () => (await first.cluster.leader('maintenance'))?.node === first.id, {
      label: 'leads',
    })
    await using second = await setup(database).attach({ lease })
    const bury = () =>
      database.query(
        `insert into forge.node (id, epoch, state, host, pid, version, roles, capabilities, lease_until, died_at)
         values (gen_random_uuid(), gen_random_uuid(), 'dead', 'long.gone', 1, '0', '{}', '{}', now(), now() - interval '2 h')`,
      )
    await bury()
    await first.stop()
    await until(async () => (await second.cluster.leader('maintenance'))?.node === second.id, {
      label: 'follows',
    })
    const buried = () => database.query(`select from forge.node where host = 'long.gone'`)
    await until(async () => (await buried()).length === 0, { label: 'forgotten' })
  })

  it('is not led by a node that neither runs jobs nor fires schedules', async () => {
    await using node = await setup(database).attach({ lease, roles: ['gateway'] })
    await using worker = await setup(database).attach({ lease, roles: ['worker'] })
    await until(() => node.cluster.leader('maintenance'), { label: 'somebody leads' })
    expect((await node.cluster.leader('maintenance'))?.node).toBe(worker.id)
    expect(await node.cluster.leader('scheduler')).toBeNull()
  })

  it('lets no chore that fails keep another from its turn, and does each at its interval', async () => {
    const { runtime, close, heard } = runtimeOf()
    const abort = new AbortController()
    let ended = Promise.resolve()
    const leader = {
      lead: (role: string, work: Parameters<ConstructorParameters<typeof Maintenance>[1]['lead']>[1]) => {
        ended = Promise.resolve(work({ role, term: { id: '', n: 1 }, signal: abort.signal }))
        return { role, term: null, stop: async () => {}, [Symbol.asyncDispose]: async () => {} }
      },
    }
    const done: string[] = []
    const chores = [
      { name: 'fails', everyMs: 600, work: () => Promise.reject(new Error('on purpose')) },
      { name: 'often', everyMs: 600, work: () => Promise.resolve(done.push('often')) },
      { name: 'seldom', everyMs: 60_000, work: () => Promise.resolve(done.push('seldom')) },
    ]
    await new Maintenance(runtime, leader, chores).start()
    await until(() => done.filter((name) => name === 'often').length >= 3, { label: 'three rounds' })
    abort.abort()
    await ended
    expect(done.filter((name) => name === 'seldom')).toHaveLength(1)
    // At first it may pass by itself; then it is for the person on call, once.
    const said = heard.filter(({ message }) => message.includes(`the chore 'fails' failed`))
    expect(said.map(({ level }) => level)).toEqual(['debug', 'warn', ...said.slice(2).map(() => 'debug')])
    expect(said[1]?.message).toContain('on purpose')
    await close()
  })
})

it('forgets terms of more than thirty days, but the last of a role, from which the next one counts on', async () => {
  const bundle = setup(database)
  await database.query(
    `insert into forge.leader (role, term, n, node, epoch, expires_at, locked)
     values ('old', gen_random_uuid(), 2, gen_random_uuid(), gen_random_uuid(), now() - interval '31 d', false)`,
  )
  await database.query(
    `insert into forge.leader_term (role, n, term, node, host, pid, began_at, ended_at, ended)
     select 'old', n, gen_random_uuid(), gen_random_uuid(), 'gone', 1, now() - interval '40 d', now() - interval '31 d', 'resigned'
       from generate_series(0, 2) n`,
  )
  await using node = await bundle.attach({ lease })
  await until(async () => (await node.cluster.terms('old')).length === 1, { label: 'forgotten' })
  const post = node.whileLeading(
    'old',
    ({ signal }) => new Promise((end) => signal.addEventListener('abort', () => end())),
  )
  await until(() => post.term?.n === 3, { label: 'counts on' })
})

describe('the watchdog', () => {
  it('names process, application and statement of a transaction that holds the horizon, once', async () => {
    const { runtime, close, heard } = runtimeOf()
    const watchdog = new Watchdog(runtime, 0)
    const client = await database.pool({ max: 1, application_name: 'nightly backup' }).connect()
    await client.query('begin isolation level repeatable read')
    await client.query('select count(*) from forge.job')
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
    await watchdog.look()
    await watchdog.look()
    const warned = heard.filter(({ level }) => level === 'warn').map(({ message }) => message)
    expect(warned).toHaveLength(1)
    expect(warned[0]).toContain(`process ${rows[0]?.pid} (postgres, nightly backup)`)
    expect(warned[0]).toContain('idle in transaction')
    expect(warned[0]).toContain('select pg_backend_pid() as pid')
    await client.query('rollback')
    client.release()
    await watchdog.look()
    expect(heard.filter(({ level }) => level === 'warn')).toHaveLength(1)
    await close()
  })

  it('says nothing of one that is younger than five minutes', async () => {
    const { runtime, close, heard } = runtimeOf()
    const client = await database.pool({ max: 1 }).connect()
    await client.query('begin isolation level repeatable read')
    await client.query('select 1')
    await new Watchdog(runtime).look()
    expect(heard.filter(({ level }) => level === 'warn')).toEqual([])
    await client.query('rollback')
    client.release()
    await close()
  })
})
