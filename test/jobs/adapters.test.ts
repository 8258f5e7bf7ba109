import { drizzle } from 'drizzle-orm/node-postgres'
import { CamelCasePlugin, Kysely, PostgresDialect } from 'kysely'
import { beforeAll, describe, expect, it } from 'vitest'
import { fromDrizzle, fromKnex, fromKysely, fromTypeOrm, type Tx } from '../../src/index.js'
import { insertJobs, removeFinishedTwins } from '../../src/jobs/queries/enqueue.js'
import { finishJobs, lockClaim } from '../../src/jobs/queries/finish.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { knexOn, kyselyOn, libraries } from './adapters-kit.js'

const database = useDatabase()
beforeAll(async () => {
  await database.query('create table effect (job uuid not null, note text); grant all on effect to public')
})

const effects = (job: string) => database.query('select note from effect where job = $1', [job])

function attempt(make: () => unknown): { code: string; message: string } {
  try {
    make()
  } catch (error) {
    return error as { code: string; message: string }
  }
  throw new Error('It was accepted.')
}

/** Every kind of value that statements of forge carry, and the notations that libraries are known to take apart. */
const values = {
  uuids: ['0198c5f0-0000-7000-8000-000000000001', null],
  texts: ['plain', 'q"uo\\te', "it's", 'a,b', '{x}', '', 'NULL', null, 'ünï\u{1F600}\n'],
  numbers: [1, -2, null],
  floats: [0.5, 1e300, null],
  flags: [true, false, null],
  moments: [new Date('2030-02-03T04:05:06.789Z'), null],
  documents: ['{"a": [1, {"b?": "$1"}]}', '"text"', 'null', null],
  nothing: [null, null],
  none: [] as string[],
  bytes: Buffer.from([0, 1, 92, 255]),
  text: 'one ? two $1',
  json: '{"deep": {"?": true}}',
  flag: false,
  missing: null,
}

const echo = `
  select $1::uuid[]::text as uuids, $2::text[] as texts, $3::int[]::text as numbers, $4::float8[]::text as floats,
         $5::boolean[]::text as flags, ($6::timestamptz[])[1] = '2030-02-03T04:05:06.789Z' as moment,
         $7::jsonb[]::text as documents, $8::float8[]::text as nothing, cardinality($9::text[]) as none,
         encode($10::bytea, 'hex') as bytes, $11::text as text, $12::jsonb as json, $13::boolean as flag,
         $14::text as missing, '{"k": 1}'::jsonb ? 'k' as operator, '?' as mark`

describe.each(libraries)('$adapter', ({ adapter, transact, adapt, outside }) => {
  it('makes the job exist when the transaction commits, and wakes a worker', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.commit', { run: (input: { n: number }) => input.n })
    await using node = await attach()
    const handle = await transact(pool, async (raw) => {
      const made = await job.enqueue({ n: 7 }, { tx: adapt(raw) })
      expect(await node.jobs.get(made.id)).toBeNull()
      await adapt(raw).query('insert into effect values ($1::uuid, $2::text)', [made.id, 'row'])
      return made
    })
    expect(await handle.result()).toBe(7)
    expect(await effects(handle.id)).toEqual([{ note: 'row' }])
  })

  it('leaves nothing behind when the transaction rolls back', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.rollback', { run: () => null })
    await using node = await attach()
    const ids: string[] = []
    const working = transact(pool, async (raw) => {
      const handles = await job.enqueueMany([{ n: 1 }, { n: 2 }], { tx: adapt(raw) })
      ids.push(...handles.map(({ id }) => id))
      throw new Error('no')
    })
    await expect(working).rejects.toThrow('no')
    expect(ids).toHaveLength(2)
    for (const id of ids) expect(await node.jobs.get(id)).toBeNull()
  })

  it('takes an id of the caller, and says when the job was there already', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.repeat', { run: () => 'once' })
    await using _node = await attach()
    const id = crypto.randomUUID()
    const first = await transact(pool, (raw) => job.enqueue({}, { tx: adapt(raw), id }))
    expect(await first.result()).toBe('once')
    const again = await transact(pool, (raw) => job.enqueue({}, { tx: adapt(raw), id }))
    expect([first.created, again.created]).toEqual([true, false])
  })

  it('completes a job in the transaction, effects and all, or not at all', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.complete', {
      retry: { attempts: 2, base: '10ms' },
      run: (_input: unknown, job) =>
        transact(pool, async (raw) => {
          const tx = adapt(raw)
          await tx.query('insert into effect values ($1::uuid, $2::text)', [job.id, `attempt ${job.attempt}`])
          await job.complete({ by: ["it's", { n: 1.5 }] }, { tx })
          if (job.attempt === 1) throw new Error('rolled back')
        }),
    })
    await using node = await attach()
    const handle = await job.enqueue({})
    expect(await handle.result()).toEqual({ by: ["it's", { n: 1.5 }] })
    expect(await effects(handle.id)).toEqual([{ note: 'attempt 2' }])
    expect(await node.jobs.get(handle.id)).toMatchObject({ state: 'completed', attempt: 2 })
  })

  it('carries every kind of value unchanged', async () => {
    const { pool } = setup(database)
    const parameters = Object.values(values)
    const plain = await pool.query(echo, parameters)
    const adapted = await transact(pool, (raw) => adapt(raw).query(echo, parameters))
    expect(adapted.rows).toEqual(plain.rows)
    expect(adapted.rows).toMatchObject([{ moment: true, bytes: '00015cff', texts: values.texts }])
  })

  it('answers with the rows of every kind of statement', async () => {
    const { pool } = setup(database)
    const note = `rows of ${adapter}`
    const job = '0198c5f0-0000-7000-8000-000000000002'
    await transact(pool, async (raw) => {
      const tx = adapt(raw)
      const made = await tx.query('insert into effect values ($1::uuid, $2::text) returning note', [
        job,
        note,
      ])
      expect(made.rows).toEqual([{ note }])
      const where = 'where note = $1::text returning note'
      expect((await tx.query(`update effect set job = job ${where}`, [note])).rows).toEqual([{ note }])
      expect((await tx.query(`delete from effect ${where}`, [note])).rows).toEqual([{ note }])
      expect((await tx.query(`delete from effect ${where}`, [note])).rows).toEqual([])
      expect((await tx.query('select 1 as one')).rows).toEqual([{ one: 1 }])
    })
  })

  it('refuses a transaction that has ended, and sends nothing', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job(`adapted.ended.${adapter}`, { run: () => null })
    await using node = await attach()
    let kept: Tx | null = null
    await transact(pool, (raw) => Promise.resolve((kept = adapt(raw))))
    const refused = job.enqueue({}, { tx: kept as unknown as Tx })
    await expect(refused).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
    await expect(refused).rejects.toThrow(adapter)
    expect(await node.jobs.list({ name: job.name })).toEqual([])
  })

  it('refuses a transaction in which a statement failed', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.failed', { run: () => null })
    await using _node = await attach()
    let refused: unknown = null
    const working = transact(pool, async (raw) => {
      const tx = adapt(raw)
      await expect(tx.query('select 1 / $1::int', [0])).rejects.toMatchObject({ code: '22012' })
      await job.enqueue({}, { tx }).catch((error: unknown) => (refused = error))
      throw new Error('over')
    })
    await expect(working).rejects.toThrow('over')
    expect(refused).toMatchObject({ code: 'FORGE_TX_FINISHED' })
    expect((refused as Error).message).toContain(adapter)
  })

  it('refuses the database itself, naming what it wants', () => {
    for (const thing of outside(setup(database).pool)) {
      const refusal = attempt(() => adapt(thing))
      expect(refusal.code).toBe('FORGE_TX_IS_POOL')
      expect(refusal.message).toMatch(new RegExp(`^${adapter}\\(\\) got the database itself; it wants the `))
    }
  })

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'undefined'],
    ['null', null, 'null'],
    ['text', 'begin', 'a string'],
    ['an empty object', {}, 'Object'],
    ['a promise of the right thing', Promise.resolve({}), 'await it first'],
    ['a function', () => {}, 'Function'],
    ['an error', new TypeError('x'), 'TypeError'],
  ])('refuses %s', (_, given, said) => {
    const refusal = attempt(() => adapt(given))
    expect(refusal.code).toBe('FORGE_TX_INVALID')
    expect(refusal.message).toContain(`${adapter}() wants`)
    expect(refusal.message).toContain(said)
  })

  it('is named when the transaction is passed without it', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.bare', { run: () => null })
    await using _node = await attach()
    await transact(pool, async (raw) => {
      const refused = job.enqueue({}, { tx: raw })
      await expect(refused).rejects.toMatchObject({ code: 'FORGE_TX_INVALID' })
      await expect(refused).rejects.toThrow(`${adapter}(tx)`)
    })
    for (const thing of outside(pool))
      await expect(job.enqueue({}, { tx: thing as never })).rejects.toThrow(`${adapter}(tx)`)
  })
})

describe('adapters', () => {
  it('get statements in which every parameter carries its cast, as Prisma needs', () => {
    for (const { name, text } of [insertJobs, removeFinishedTwins, finishJobs, lockClaim]) {
      const bare = text('forge').match(/\$\d+(?!\d|::)/g)
      expect(bare, name).toBeNull()
    }
  })

  it('show their statements to the logger of Drizzle', async () => {
    const { pool } = setup(database)
    const logged: string[] = []
    const db = drizzle(pool, { logger: { logQuery: (query) => logged.push(query) } })
    await db.transaction((tx) => fromDrizzle(tx).query('select $1::int as n', [1]))
    expect(logged).toContain('select $1::int as n')
  })

  it('work in the savepoint of an inner transaction', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.savepoint', { run: () => null })
    await using node = await attach()
    const [kept, undone] = await drizzle(pool).transaction(async (outer) => {
      const first = await job.enqueue({}, { tx: fromDrizzle(outer) })
      let second = ''
      const inner = outer.transaction(async (tx) => {
        second = (await job.enqueue({}, { tx: fromDrizzle(tx) })).id
        tx.rollback()
      })
      await expect(inner).rejects.toThrow()
      return [first.id, second]
    })
    expect(await node.jobs.get(kept)).not.toBeNull()
    expect(await node.jobs.get(undone)).toBeNull()
  })

  it("are not changed by Kysely's plugins, and know the end of a controlled transaction", async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.plugins', { run: () => 'ran' })
    await using _node = await attach()
    const plugged = new Kysely({ dialect: new PostgresDialect({ pool }), plugins: [new CamelCasePlugin()] })
    const trx = await plugged.startTransaction().execute()
    const tx = fromKysely(trx)
    expect((await tx.query('select 1 as some_name')).rows).toEqual([{ some_name: 1 }])
    const handle = await job.enqueue({}, { tx })
    await trx.commit().execute()
    expect(await handle.result()).toBe('ran')
    await expect(job.enqueue({}, { tx })).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
    const other = await kyselyOn(pool).startTransaction().execute()
    const late = fromKysely(other)
    await other.rollback().execute()
    await expect(job.enqueue({}, { tx: late })).rejects.toMatchObject({ code: 'FORGE_TX_FINISHED' })
  })

  it('take a Knex transaction that was not given a function', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('adapted.knex', { run: () => 'ran' })
    await using _node = await attach()
    const db = knexOn(pool)
    const trx = await db.transaction()
    const handle = await job.enqueue({ '?': '$1' }, { tx: fromKnex(trx) })
    await trx.commit()
    await db.destroy()
    expect(await handle.result()).toBe('ran')
  })

  it('refuse a TypeORM manager whose query runner has begun nothing', () => {
    const manager = {
      query: () => Promise.resolve([]),
      queryRunner: { isTransactionActive: false, isReleased: false },
    }
    const tx = fromTypeOrm(manager) as Tx & { getTransactionStatus(): string }
    expect(tx.getTransactionStatus()).toBe('I')
  })
})
