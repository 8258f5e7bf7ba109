import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createForge, type ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'

/* A server or a role that is not as one would wish. */
const database = useDatabase()
const role = `chaos_${randomBytes(4).toString('hex')}`
const password = randomBytes(12).toString('hex')

beforeAll(async () => {
  await database.query(`create role ${role} login password '${password}'`)
  await database.query(`grant usage on schema forge to ${role}`)
  for (const kind of ['tables', 'sequences', 'functions'])
    await database.query(`grant all on all ${kind} in schema forge to ${role}`)
})
afterAll(async () => {
  await database.query(`drop owned by ${role}`)
  await database.query(`drop role ${role}`)
})

const asRole = (): string => {
  const url = new URL(database.url)
  ;[url.username, url.password] = [role, password]
  return url.href
}

function defineWork(forge: ReturnType<typeof createForge>) {
  return {
    double: forge.job('double', { run: (input: { n: number }) => input.n * 2 }),
    inTransaction: forge.job('in.transaction', {
      retry: { attempts: 20, base: '20ms', max: '200ms' },
      run: async (_: null, job) => {
        await job.transaction((tx) => job.complete('done', { tx }))
      },
    }),
    forever: forge.job('forever', {
      run: (_: null, job) =>
        new Promise((_resolve, reject) => {
          job.signal.addEventListener('abort', () => reject(job.signal.reason as Error))
        }),
    }),
  }
}

const check = async (node: ForgeNode, name: string): Promise<unknown> =>
  (await node.health()).checks.find((one) => one.name === name)

it('works by polling when NOTIFY fails altogether', async () => {
  // The role may not call it; the tests' own connections are a superuser's.
  await database.query('revoke execute on function pg_notify(text, text) from public')
  try {
    const [here, there] = [createForge(), createForge()]
    const [client, server] = [defineWork(here), defineWork(there)]
    const connection = { connectionString: asRole(), max: 3 }
    await using gateway = await here.attach(null, database.pool(connection), {
      roles: ['gateway'],
      logger: false,
    })
    await using worker = await there.attach(null, database.pool(connection), {
      roles: ['worker'],
      logger: false,
    })
    expect(server.double).toBeDefined()
    expect(await check(worker, 'listener')).toMatchObject({ ok: false })

    const spansMs: number[] = []
    for (let n = 0; n < 3; n++) {
      const since = performance.now()
      const handle = await client.double.enqueue({ n })
      expect(await handle.result({ timeout: '20s' })).toBe(n * 2)
      spansMs.push(performance.now() - since)
    }
    const committed = await gateway.transaction((tx) => client.inTransaction.enqueue(null, { tx }))
    expect(await committed.result({ timeout: '20s' })).toBe('done')

    const endless = await client.forever.enqueue(null)
    const state = async (): Promise<string | undefined> => (await gateway.jobs.get(endless.id))?.state
    await until(async () => (await state()) === 'running', { label: 'it runs' })
    await gateway.jobs.cancel(endless.id)
    await until(async () => (await state()) === 'cancelled', { label: 'it was cancelled' })

    const slowest = Math.max(...spansMs)
    process.stdout.write(`without NOTIFY: enqueue to result at most ${slowest.toFixed(0)} ms\n`)
    // It polls each second for work, and the other side as often for the result.
    expect(slowest).toBeLessThan(10_000)
  } finally {
    await database.query('grant execute on function pg_notify(text, text) to public')
  }
})

it('runs jobs for a role with a statement_timeout of 50 ms and a serializable default', async () => {
  const settings = { statement_timeout: `'50ms'`, default_transaction_isolation: 'serializable' }
  for (const [name, value] of Object.entries(settings))
    await database.query(`alter role ${role} in database ${database.name} set ${name} = ${value}`)
  const forge = createForge()
  const { double, inTransaction } = defineWork(forge)
  const pool = database.pool({ connectionString: asRole(), max: 4 })
  await using node = await forge.attach(null, pool, { logger: false, concurrency: 4 })
  const { rows } = await pool.query(`select current_setting('statement_timeout') as timeout,
                                            current_setting('transaction_isolation') as isolation`)
  expect(rows).toEqual([{ timeout: '50ms', isolation: 'serializable' }])

  const many = await double.enqueueMany(Array.from({ length: 300 }, (_, n) => ({ n })))
  const transactions = await inTransaction.enqueueMany(Array.from({ length: 30 }, () => null))
  await Promise.all([...many, ...transactions].map((handle) => handle.result({ timeout: '30s' })))

  // Statements of forge's own that have to wait for a lock for longer than that.
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  await blocker.query('begin; lock table forge.job in access exclusive mode')
  const waiting = double.enqueue({ n: 21 })
  await pause(400)
  await blocker.query('commit')
  await blocker.end()
  expect(await (await waiting).result({ timeout: '20s' })).toBe(42)
  expect(await node.jobs.counts()).toMatchObject({ completed: 331 + 4, discarded: 0 })
})
