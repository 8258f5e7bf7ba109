import { prepareDatabase } from './database/index.js'
import {
  ForgeError,
  isConnectionError,
  isForgeError,
  messageOf,
  type Service,
  sleep,
  startAll,
  stopAll,
  systemClock,
  within,
} from './kernel/index.js'
import type { Runtime } from './runtime/index.js'

/** What a start brings up. */
export interface Startable {
  readonly runtime: Runtime
  /** Called when all of them run. */
  readonly begun: () => Promise<void>
  /** In the order in which they start. */
  readonly services: readonly Service[]
  /** Closes the shared connections. */
  readonly close: () => Promise<void>
}

interface StartOptions {
  /** Milliseconds. */
  readonly startTimeout: number
  readonly migrate: 'auto' | 'check' | 'off'
}

const againMs = 250
/** For a start that was given up to notice it. */
const settleMs = 10_000

/**
 * Prepares the schema and starts the services of what `make` makes. A connection that breaks on the way costs a try and
 * not the start: until option startTimeout is over, all is made anew. After a failure nothing is left of it.
 * @throws ForgeError FORGE_START_TIMEOUT; whatever `make`, prepareDatabase and the services throw
 */
export async function bringUp<T extends Startable>(make: () => T, options: StartOptions): Promise<T> {
  const until = systemClock.monotonicMs() + options.startTimeout
  for (;;) {
    const made = make()
    try {
      await start(made, options, Math.max(1, Math.round(until - systemClock.monotonicMs())))
      return made
    } catch (error) {
      await made.close()
      if (!isBroken(error) || systemClock.monotonicMs() + againMs >= until) throw error
      made.runtime.log.debug(`forge: the connection broke during the start: ${messageOf(error)}`)
    }
    await sleep(systemClock, againMs)
  }
}

/** Of a commit without an answer too: nothing that a start writes is wrong when it is written twice. */
function isBroken(error: unknown): boolean {
  return isConnectionError(error) || isForgeError(error, 'FORGE_COMMIT_UNKNOWN')
}

/** One try, of what is left of the time. */
async function start(
  { runtime, services, begun }: Startable,
  { startTimeout, migrate: mode }: StartOptions,
  timeoutMs: number,
): Promise<void> {
  const { db, clock, log } = runtime
  const late = (): Error => new ForgeError('FORGE_START_TIMEOUT', `${startTimeout} ms.`)
  let given = true
  const work = async (): Promise<void> => {
    await prepareDatabase({ source: db.source, schema: db.schema, clock, logger: log, mode, timeoutMs })
    if (given) await startAll(services)
    if (given) await begun()
  }
  const working = work()
  try {
    // A little later than the wait for the server, whose own error says more.
    await within(working, { clock, ms: timeoutMs + 500, late })
  } catch (error) {
    given = false
    await stopAll(services)
    await within(working, { clock, ms: settleMs, late }).catch(() => {})
    // What was in the middle of its start when it was stopped.
    await stopAll(services)
    throw error
  }
}
