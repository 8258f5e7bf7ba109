import {
  backoffMs,
  type Clock,
  codeOf,
  ForgeError,
  invalidOption,
  isConnectionError,
  sleep,
  within,
} from '../kernel/index.js'
import { beginPlain, commit, rollback } from './queries.js'
import type { HostClient, HostPool } from './source.js'
import { ownTx, type Tx } from './tx.js'

export interface TransactionOptions {
  /** How often to run `fn` again after a serialization failure (40001) or a deadlock (40P01). Default 0. */
  readonly retries?: number
}

interface Host {
  readonly pool: HostPool
  readonly clock: Clock
}

/** A half-open connection would keep the client from the pool for ever. */
const rollbackMs = 5_000
const retryable = new Set(['40001', '40P01'])
const pause = { kind: 'exponential', baseMs: 10, maxMs: 1_000, jitter: 0.5 } as const

/**
 * BEGIN, `fn(tx)`, COMMIT on a client of the host's pool; ROLLBACK when `fn` throws, and its error is thrown on.
 * @throws ForgeError FORGE_COMMIT_UNKNOWN when the connection broke during COMMIT
 */
export async function transact<T>(
  host: Host,
  fn: (tx: Tx) => Promise<T>,
  options: TransactionOptions = {},
): Promise<T> {
  const retries = checkRetries(options)
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(host, fn)
    } catch (error) {
      if (attempt > retries || !retryable.has(codeOf(error))) throw error
      await sleep(host.clock, backoffMs(pause, attempt, Math.random()))
    }
  }
}

function checkRetries(options: TransactionOptions): number {
  const retries = options.retries ?? 0
  if (!Number.isInteger(retries) || retries < 0 || retries > 100) {
    throw invalidOption('retries of transaction()', 'must be a whole number from 0 to 100')
  }
  return retries
}

async function once<T>({ pool, clock }: Host, fn: (tx: Tx) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  const hooks: (() => void)[] = []
  let fault: Error | null = null
  const note = (error: Error): void => void (fault = error)
  // A checked-out client without a listener of its own ends the process when its connection drops.
  client.on('error', note)
  try {
    const result = await runOn(client, fn, hooks)
    hooks.forEach(tell)
    return result
  } catch (error) {
    // A connection that cannot even roll back must not return to the pool.
    const late = (): Error => new ForgeError('FORGE_DEADLINE', 'ROLLBACK.')
    const undone = within(client.query(rollback), { clock, ms: rollbackMs, late })
    await undone.catch((failure: Error) => (fault ??= failure))
    throw error
  } finally {
    client.off('error', note)
    client.release(fault ?? undefined)
  }
}

async function runOn<T>(client: HostClient, fn: (tx: Tx) => Promise<T>, hooks: (() => void)[]): Promise<T> {
  await client.query(beginPlain)
  let open = true
  const query: Tx['query'] = (text, values) => {
    if (!open) return Promise.reject(new ForgeError('FORGE_TX_FINISHED'))
    return client.query(text, values)
  }
  try {
    const result = await fn(ownTx(query, () => (open ? 'T' : 'I'), hooks))
    open = false
    await commitOn(client)
    return result
  } finally {
    open = false
  }
}

/** The commit stands: a hook that throws must not make the transaction look failed. */
function tell(hook: () => void): void {
  try {
    hook()
  } catch {
    // A hook only makes things sooner; polling finds the same.
  }
}

async function commitOn(client: HostClient): Promise<void> {
  try {
    const answer = await client.query(commit)
    // COMMIT of a transaction in which a statement failed answers ROLLBACK and raises nothing.
    if (answer.command === 'ROLLBACK')
      throw new ForgeError('FORGE_TX_FINISHED', 'A statement of it had failed.')
  } catch (error) {
    if (!isConnectionError(error)) throw error
    throw new ForgeError('FORGE_COMMIT_UNKNOWN', undefined, { cause: error })
  }
}
