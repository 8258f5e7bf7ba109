import { drizzle } from 'drizzle-orm/node-postgres'
import knex, { type Knex } from 'knex'
import { Kysely, PostgresDialect } from 'kysely'
import type pg from 'pg'
import { fromDrizzle, fromKnex, fromKysely, fromPrisma, fromTypeOrm, type Tx } from '../../src/index.js'
import { imitatePrisma, imitateTypeOrm } from './imitations.js'

/** One library as the tests meet it. */
export interface Library {
  readonly adapter: string
  /** BEGIN, `work` with the library's own transaction, COMMIT; or ROLLBACK and the error of `work`. */
  transact<T>(pool: pg.Pool, work: (raw: never) => Promise<T>): Promise<T>
  /** What the user writes. */
  adapt(raw: unknown): Tx
  /** What has no transaction: the database, in the forms it has. */
  outside(pool: pg.Pool): readonly unknown[]
}

/** Knex on the pool of the test: it does not own it. */
export function knexOn(pool: pg.Pool): Knex {
  const connection = pool.options.connectionString as string
  const settings = {
    connectionString: connection,
    options: pool.options.options,
  } as Knex.StaticConnectionConfig
  return knex({ client: 'pg', connection: settings, pool: { min: 0, max: 1 } })
}

export function kyselyOn(pool: pg.Pool): Kysely<Record<string, never>> {
  return new Kysely({ dialect: new PostgresDialect({ pool }) })
}

export const libraries: readonly Library[] = [
  {
    adapter: 'fromDrizzle',
    transact: (pool, work) => drizzle(pool).transaction((tx) => work(tx as never)),
    adapt: (raw) => fromDrizzle(raw as never),
    outside: (pool) => [drizzle(pool)],
  },
  {
    adapter: 'fromKysely',
    transact: (pool, work) =>
      kyselyOn(pool)
        .transaction()
        .execute((trx) => work(trx as never)),
    adapt: (raw) => fromKysely(raw as never),
    outside: (pool) => [kyselyOn(pool)],
  },
  {
    adapter: 'fromKnex',
    async transact(pool, work) {
      const db = knexOn(pool)
      try {
        return await db.transaction((trx) => work(trx as never))
      } finally {
        await db.destroy()
      }
    },
    adapt: (raw) => fromKnex(raw as never),
    outside: (pool) => [knexOn(pool)],
  },
  {
    adapter: 'fromPrisma',
    transact: (pool, work) => imitatePrisma(pool).$transaction((tx) => work(tx as never)),
    adapt: (raw) => fromPrisma(raw as never),
    outside: (pool) => [imitatePrisma(pool)],
  },
  {
    adapter: 'fromTypeOrm',
    transact: (pool, work) => imitateTypeOrm(pool).transaction((manager) => work(manager as never)),
    adapt: (raw) => fromTypeOrm(raw as never),
    outside: (pool) => [imitateTypeOrm(pool), imitateTypeOrm(pool).manager],
  },
]
