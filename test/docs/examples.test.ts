import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { blocks, page, root } from './pages.js'

/*
 * The examples of the guides, taken from the pages as they stand: compiled together, and run as a reader would run them.
 * They are written to a folder of the repository, so that they find the packages they name.
 */
const database = useDatabase({ migrated: false })
const home = fileURLToPath(root)
let folder = ''

/** As much of the packages that are not installed as the examples name; the signatures are those of the packages. */
const absent = `
declare module '@prisma/client' {
  interface OrderDelegate { create(args: { data: { customer: string } }): Promise<{ id: string; customer: string }> }
  type DenyList = '$connect' | '$disconnect' | '$on' | '$transaction' | '$extends'
  export class PrismaClient {
    order: OrderDelegate
    $connect(): Promise<void>
    $disconnect(): Promise<void>
    $on(event: string, listener: () => void): PrismaClient
    $extends(extension: object): PrismaClient
    $queryRawUnsafe<T = unknown>(query: string, ...values: any[]): Promise<T> & { readonly [Symbol.toStringTag]: 'PrismaPromise' }
    $transaction<R>(fn: (prisma: Omit<PrismaClient, DenyList>) => Promise<R>, options?: { timeout?: number }): Promise<R>
  }
}
declare module 'typeorm' {
  export interface QueryRunner {
    readonly isReleased: boolean
    readonly isTransactionActive: boolean
    query(query: string, parameters?: any[]): Promise<any>
  }
  export class EntityManager {
    readonly queryRunner?: QueryRunner
    query<T = any>(query: string, parameters?: any[]): Promise<T>
    save<T>(target: string, entity: T): Promise<T & { id: string }>
  }
  export class DataSource {
    constructor(options: { type: 'postgres'; url: string })
    readonly manager: EntityManager
    transaction<T>(runInTransaction: (entityManager: EntityManager) => Promise<T>): Promise<T>
  }
}
`

/** What must not compile: the database itself, where its transaction is wanted. */
const wrong = `
import { PrismaClient } from '@prisma/client'
import { drizzle } from 'drizzle-orm/node-postgres'
import { fromDrizzle, fromKnex, fromKysely, fromPrisma } from 'forge'
import knex from 'knex'
import { type Dialect, Kysely } from 'kysely'
declare const dialect: Dialect
// @ts-expect-error the database is no transaction
fromDrizzle(drizzle('postgres://'))
// @ts-expect-error the database is no transaction
fromKysely(new Kysely<object>({ dialect }))
// @ts-expect-error the database is no transaction
fromKnex(knex({}))
// @ts-expect-error the client is no transaction
fromPrisma(new PrismaClient())
`

const viteConfig = `
export default {
  resolve: { alias: [
    { find: /^forge$/, replacement: ${JSON.stringify(path.join(home, 'src/index.ts'))} },
    { find: /^forge\\/testing$/, replacement: ${JSON.stringify(path.join(home, 'src/testing/index.ts'))} },
  ] },
  test: { include: ['orders.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 },
}
`

function only(file: string, words: string): string {
  const found = blocks(page(file), words)
  if (found.length !== 1) throw new Error(`${file} has ${found.length} blocks '${words}'.`)
  return found[0] as string
}

function write(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true })
    writeFileSync(path.join(folder, name), text)
  }
}

beforeAll(() => {
  mkdirSync(path.join(home, '.forge'), { recursive: true })
  folder = mkdtempSync(path.join(home, '.forge/examples-'))
  const names = ['jobs', 'pg', 'drizzle', 'kysely', 'knex', 'prisma', 'typeorm']
  for (const name of names) write({ [`tx/${name}.ts`]: only('docs/transactions.md', `ts ${name}`) })
  const orders = only('docs/testing.md', 'ts orders')
  write({
    'tx/absent.d.ts': absent,
    'tx/wrong.ts': wrong,
    'vitest/orders.ts': orders,
    'vitest/orders.test.ts': only('docs/testing.md', 'ts vitest'),
    'vitest/vitest.config.mjs': viteConfig,
    'node/orders.ts': orders,
    'node/orders.test.ts': only('docs/testing.md', 'ts node:test'),
    'tsconfig.json': JSON.stringify({ extends: '../../tsconfig.json', include: ['**/*.ts'], exclude: [] }),
  })
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Resolves with what it printed; rejects with all of it. */
function run(args: readonly string[], cwd = home): Promise<string> {
  const env = { ...process.env, DATABASE_URL: database.url, NODE_ENV: 'test' }
  // Variables of the test run that this file is part of.
  for (const name of Object.keys(env)) if (/^(VITEST|NODE_TEST)/.test(name)) Reflect.deleteProperty(env, name)
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { cwd, env, timeout: 120_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${args.join(' ')}\n${stdout}\n${stderr}`))
      else resolve(stdout)
    })
  })
}

const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))

describe('the examples of the guides', () => {
  it('compile', async () => {
    await run([path.join(home, 'node_modules/@typescript/native/bin/tsc'), '-p', folder])
  })

  it('of transactions place their orders, with their jobs', async () => {
    const args = [
      '--import',
      fixture('from-source.mjs'),
      fixture('transactions.mjs'),
      path.join(folder, 'tx'),
    ]
    expect(JSON.parse(await run(args))).toEqual({
      pg: 'confirmed',
      drizzle: 'confirmed',
      charge: true,
      kysely: 'confirmed',
      knex: 'confirmed',
    })
  })

  it('of tests pass under vitest', async () => {
    const vitest = path.join(home, 'node_modules/vitest/vitest.mjs')
    const report = path.join(folder, 'report.json')
    await run([vitest, 'run', '--reporter=json', `--outputFile=${report}`], path.join(folder, 'vitest'))
    expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({
      numPassedTests: 2,
      numTotalTests: 2,
      success: true,
    })
  })

  it('of tests pass under node:test', async () => {
    const file = path.join(folder, 'node/orders.test.ts')
    const stdout = await run(['--import', fixture('from-source.mjs'), '--test', '--test-reporter=tap', file])
    expect(stdout).toMatch(/^# pass 2$/m)
    expect(stdout).toMatch(/^# fail 0$/m)
  })
})
