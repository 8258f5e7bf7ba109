import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  ClientSource,
  onCommit,
  transact,
  type Tx,
  type TransactionOptions,
} from '../../src/database/index.js'
import { isConnectionError, systemClock } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { failure, fakeServer, loggedIn } from './fake-server.js'
import { proxyTo } from './kit.js'

const database = useDatabase({ migrated: false })

beforeAll(() => database.query('CREATE TABLE entry (name text PRIMARY KEY, n int NOT NULL DEFAULT 0)'))

function setup(config?: pg.PoolConfig) {
  const pool = database.pool({ max: 1, ...config })
  const run = <T>(fn: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T> =>
    transact({ pool, clock: systemClock }, fn, options)
  return { pool, run }
}

const add = (tx: Tx, name: string) => tx.query('INSERT INTO entry (name) VALUES ($1)', [name])

async function pidOf(tx: Pick<Tx, 'query'>): Promise<number> {
  return ((await tx.query('SELECT pg_backend_pid() AS pid')).rows[0] as { pid: number }).pid
}

async function isThere(name: string): Promise<boolean> {
  return (await database.query('SELECT FROM entry WHERE name = $1', [name])).length > 0
}

const coded = (code: string): Error => Object.assign(new Error(code), { code })

test('a backend that is terminated in the packet that ends its login fails the transaction, not the process', async () => {
  await using server = await fakeServer(Buffer.concat([loggedIn, failure('FATAL', '57P01')]), () => loggedIn)
  const pool = new pg.Pool({ connectionString: server.url, max: 1 })
  pool.on('error', () => {})
  expect(new ClientSource(pool).openCount).toBe(0)
  let error: unknown = null
  await transact({ pool, clock: systemClock }, async () => {}).catch((thrown: unknown) => (error = thrown))
  expect(isConnectionError(error)).toBe(true)
  expect(pool.totalCount).toBe(0)
})

describe('what becomes of it', () => {
  test('it is committed, and gives what its work gave', async () => {
    const { run } = setup()
    const result = await run(async (tx) => {
      await add(tx, 'committed')
      return 'result'
    })
    expect(result).toBe('result')
    expect(await isThere('committed')).toBe(true)
  })

  test('it is rolled back when its work throws, with that very error, and the client goes on', async () => {
    const { run } = setup()
    // An error of some other network than the one to PostgreSQL says nothing about the client.
    const fault = coded('ECONNREFUSED')
    const pids: number[] = []
    const failing = run(async (tx) => {
      pids.push(await pidOf(tx))
      await add(tx, 'thrown')
      throw fault
    })
    await expect(failing).rejects.toBe(fault)
    expect(await isThere('thrown')).toBe(false)
    expect(await run(pidOf)).toBe(pids[0])
  })

  test('a statement that failed and was not minded is an error, since nothing of it was kept', async () => {
    const { run } = setup()
    const told: string[] = []
    const swallowing = run(async (tx) => {
      onCommit(tx, () => told.push('committed'))
      await add(tx, 'swallowed')
      await tx.query('SELECT 1/0').catch(() => {})
    })
    await expect(swallowing).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
    expect(await isThere('swallowed')).toBe(false)
    expect(told).toEqual([])
  })

  test('it has the isolation that the database of the host has', async () => {
    await database.query(
      `ALTER DATABASE ${database.name} SET default_transaction_isolation = 'repeatable read'`,
    )
    const { rows } = await setup().run((tx) => tx.query('SHOW transaction_isolation'))
    await database.query(`ALTER DATABASE ${database.name} RESET default_transaction_isolation`)
    expect(rows).toEqual([{ transaction_isolation: 'repeatable read' }])
  })

  test('what is sent after its end is refused, whether it was committed or not', async () => {
    const { run } = setup()
    let kept: Tx | undefined
    await run(async (tx) => void (kept = tx))
    await expect(kept?.query('SELECT 1')).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
    await run(async (tx) => {
      kept = tx
      throw new Error('mine')
    }).catch(() => {})
    await expect(kept?.query('SELECT 1')).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
  })

  test('an ended pool, and one without a free client, say so by themselves', async () => {
    const { pool, run } = setup({ connectionTimeoutMillis: 50 })
    const inside = run(() => run(pidOf))
    await expect(inside).rejects.toThrow(/timeout exceeded|connection timeout/)
    await pool.end()
    await expect(run(pidOf)).rejects.toThrow('after calling end')
  })
})

describe('hooks', () => {
  test('run after the commit, in order, and see what was committed', async () => {
    const { run } = setup()
    const seen: Promise<string>[] = []
    const look = (who: string) => async () => `${who} ${await isThere('hooked')}`
    await run(async (tx) => {
      for (const who of ['first', 'second']) onCommit(tx, () => seen.push(look(who)()))
      await add(tx, 'hooked')
      expect(seen).toEqual([])
    })
    expect(await Promise.all(seen)).toEqual(['first true', 'second true'])
  })

  test('do not run after a rollback', async () => {
    const told: string[] = []
    const failing = setup().run(async (tx) => {
      onCommit(tx, () => told.push('committed'))
      throw new Error('mine')
    })
    await expect(failing).rejects.toThrow('mine')
    expect(told).toEqual([])
  })

  test('that throw change nothing: what is committed is committed, and the others run', async () => {
    const told: string[] = []
    const result = await setup().run(async (tx) => {
      onCommit(tx, () => {
        throw new Error('rude')
      })
      onCommit(tx, () => told.push('polite'))
      return 'result'
    })
    expect([result, told]).toEqual(['result', ['polite']])
  })
})

describe('retries', () => {
  function failingTwice(code: string) {
    let attempts = 0
    const told: number[] = []
    const work = async (tx: Tx): Promise<number> => {
      const attempt = ++attempts
      onCommit(tx, () => told.push(attempt))
      await tx.query('SELECT 1')
      if (attempt < 3) throw coded(code)
      return attempt
    }
    return { work, told, attempts: () => attempts }
  }

  test.each(['40001', '40P01'])('run the work again after %s, as often as asked', async (code) => {
    const { work, told } = failingTwice(code)
    expect(await setup().run(work, { retries: 2 })).toBe(3)
    expect(told).toEqual([3])
    const short = failingTwice(code)
    await expect(setup().run(short.work, { retries: 1 })).rejects.toMatchObject({ code })
    expect(short.attempts()).toBe(2)
  })

  test('are not made unless asked for, nor after any other error', async () => {
    const silent = failingTwice('40001')
    await expect(setup().run(silent.work)).rejects.toMatchObject({ code: '40001' })
    const other = failingTwice('23505')
    await expect(setup().run(other.work, { retries: 5 })).rejects.toMatchObject({ code: '23505' })
    expect([silent.attempts(), other.attempts()]).toEqual([1, 1])
  })

  test('let both sides of a deadlock through', async () => {
    const { run } = setup({ max: 2 })
    await database.query(`INSERT INTO entry (name) VALUES ('left'), ('right')`)
    const first = new Set<string>()
    const both = (mine: string, other: string) =>
      run(
        async (tx) => {
          const bump = (name: string) => tx.query('UPDATE entry SET n = n + 1 WHERE name = $1', [name])
          await bump(mine)
          first.add(mine)
          await until(() => first.size === 2, { label: 'both hold their first row' })
          await bump(other)
        },
        { retries: 5 },
      )
    await Promise.all([both('left', 'right'), both('right', 'left')])
    const rows = await database.query(`SELECT n FROM entry WHERE name IN ('left', 'right')`)
    expect(rows).toEqual([{ n: 2 }, { n: 2 }])
  })

  test.each([-1, 101, 1.5, Number.NaN, '3', false])(
    'of %j are refused before anything is sent',
    async (retries) => {
      const { pool, run } = setup()
      await expect(run(pidOf, { retries } as TransactionOptions)).rejects.toMatchObject({
        code: 'FORGE_OPTION_INVALID',
      })
      expect(pool.totalCount).toBe(0)
    },
  )
})

describe('a connection that breaks', () => {
  test('in the middle ends neither the process nor the pool, which makes another', async () => {
    const { run } = setup()
    let pid = 0
    const broken = run(async (tx) => {
      pid = await pidOf(tx)
      await add(tx, 'broken')
      await database.query('SELECT pg_terminate_backend($1)', [pid])
      await until(() => tx.query('SELECT 1').then(() => false, () => true), { label: 'it is broken' }) // prettier-ignore
    })
    await expect(broken).rejects.toThrow()
    expect(await isThere('broken')).toBe(false)
    expect(await run(pidOf)).not.toBe(pid)
  })

  test('after COMMIT was sent leaves the outcome open; the client is not used again', async () => {
    const proxy = await proxyTo(database.url)
    const { run } = setup({ connectionString: proxy.databaseUrl })
    const pid = await run(pidOf)
    const told: string[] = []
    const cut = proxy.cutAfterBytes({ direction: 'toServer', match: 'commit' })
    const unknown = run(async (tx) => {
      onCommit(tx, () => told.push('committed'))
      await add(tx, 'unknown')
    })
    await expect(unknown).rejects.toMatchObject({ code: 'FORGE_COMMIT_UNKNOWN', cause: expect.any(Error) })
    await cut.happened()
    expect(await isThere('unknown')).toBe(true)
    expect(told).toEqual([])
    expect(await run(pidOf)).not.toBe(pid)
  })

  test('so that it cannot even roll back is thrown away, and not returned to the pool', async () => {
    const proxy = await proxyTo(database.url)
    const { pool, run } = setup({ connectionString: proxy.databaseUrl, query_timeout: 200 })
    const stuck = run(async (tx) => {
      await add(tx, 'stuck')
      proxy.blackhole()
      throw new Error('mine')
    })
    await expect(stuck).rejects.toThrow('mine')
    expect([pool.totalCount, pool.idleCount]).toEqual([0, 0])
    proxy.resume()
    await until(async () => !(await isThere('stuck')), { label: 'it is rolled back' })
  })
})
