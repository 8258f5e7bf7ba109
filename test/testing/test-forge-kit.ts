import { createForge, type Forge } from '../../src/index.js'
import { testForge, type TestForge, type TestForgeOptions } from '../../src/testing/index.js'
import type { TestDatabaseAccess } from '../support/database.js'
import { setup } from '../support/forge.js'

let schemas = 0

/** A forge under test on a schema of its own. */
export async function bench(
  database: TestDatabaseAccess,
  define: (forge: Forge) => void,
  options?: TestForgeOptions,
): Promise<TestForge & { readonly schema: string }> {
  const forge = createForge()
  define(forge)
  const schema = `bench_${++schemas}`
  const t = await testForge(forge, setup(database).pool, { schema, ...options })
  return { ...t, schema }
}

export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  if (error === null) throw new Error('It was not rejected.')
  return error as Error & { code?: string }
}
