import packageJson from '../package.json' with { type: 'json' }
import { ClusterService } from './cluster/index.js'
import { type HostPool, prepareDatabase, transact, type Tx } from './database/index.js'
import { createRoutes, type HostApp, mount } from './host/index.js'
import { createDefineJob, type DefineJob, type JobEngine, JobRegistry, JobsService } from './jobs/index.js'
import {
  AlreadyAttached,
  codeOf,
  ForgeError,
  messageOf,
  resolveOptions,
  type Service,
  startAll,
  stopAll,
  within,
} from './kernel/index.js'
import { createNode, type ForgeNode, type NodeParts, readPage } from './node.js'
import { type AttachOptions, optionTable, type ResolvedOptions } from './options.js'
import { createRuntime, environment, isDevelopment, type RuntimeParts } from './runtime/index.js'
import { stopOnSignals, warnOfSignals } from './process-signals.js'

/** A forge: definitions, and at most one attached node at a time. */
export interface Forge {
  /** Defines a job. See `DefineJob`. */
  readonly job: DefineJob
  /**
   * Mounts forge on `app` (null: no HTTP), at once, and starts this process' roles on the database of `pool`.
   * Resolves when they run. A failed start is logged once and leaves nothing running or connected.
   * @throws AlreadyAttached; ForgeError FORGE_OPTION_…, FORGE_POOL_…, FORGE_DATABASE_…, FORGE_MIGRATION_…,
   * FORGE_SCHEMA_…, FORGE_PATH_TAKEN, FORGE_START_TIMEOUT
   */
  attach(app: HostApp, pool: HostPool, options?: AttachOptions): Promise<ForgeNode>
}

/** Null: not attached. A promise: starting; early calls wait for it. */
type Engine = JobEngine | Promise<JobEngine> | null

/** Another instance beside the default one: for tests, or for two databases in one process. */
export function createForge(): Forge {
  const registry = new JobRegistry()
  let engine: Engine = null
  return {
    job: createDefineJob(registry, () => engine),
    attach(app, pool, options) {
      const setEngine = (next: Engine): void => void (engine = next)
      const free = engine === null
      const attaching = free
        ? attach({ app, pool, registry, setEngine }, options)
        : Promise.reject(new AlreadyAttached())
      // Not awaiting attach is fine: a failed start is logged, and must not end the host as an unhandled rejection.
      attaching.catch(() => {})
      return attaching
    },
  }
}

interface Attachment {
  readonly app: HostApp
  readonly pool: HostPool
  readonly registry: JobRegistry
  readonly setEngine: (engine: Engine) => void
}

/** Synchronous up to its first await: what can be refused is refused, then the routes are mounted. */
async function attach(given: Attachment, raw: AttachOptions | undefined): Promise<ForgeNode> {
  const options = resolveOptions(optionTable, raw, environment())
  const parts = createRuntime(given.pool, options)
  const assembly = assemble(given, options, parts)
  const release = mountRoutes(given.app, options, assembly)
  warnOfSignals(given.app === null && !options.signals, parts.runtime.log)
  const started = start(options, parts, assembly.services)
  const engine = started.then(() => assembly.jobs)
  engine.catch(() => {})
  given.setEngine(engine)
  try {
    await started
  } catch (error) {
    given.setEngine(null)
    await parts.close()
    release()
    parts.runtime.log.error(`forge did not start: ${messageOf(error)}`, { code: codeOf(error) })
    throw error
  }
  given.setEngine(assembly.jobs)
  assembly.serving.value = true
  const node = createNode({
    ...assembly,
    stop: (ms) => stop(given, { parts, assembly, release, deadlineMs: ms }),
  })
  if (options.signals) assembly.offSignals.value = stopOnSignals(node)
  return node
}

type Assembly = Omit<NodeParts, 'stop'> & {
  readonly services: readonly Service[]
  readonly serving: { value: boolean }
  readonly offSignals: { value: (() => void) | null }
}

/** The services of a node, in start order: this list is the architecture. Stop is the reverse. */
function assemble(given: Attachment, options: ResolvedOptions, { runtime, signals }: RuntimeParts): Assembly {
  const transaction: NodeParts['transaction'] = (fn, how) =>
    transact({ pool: given.pool, clock: runtime.clock }, fn, how)
  const cluster = new ClusterService(runtime, options, packageJson.version)
  const jobs = new JobsService({
    runtime,
    options,
    membership: cluster,
    registry: given.registry,
    works: options.roles.includes('worker'),
    transaction: <T>(fn: (tx: Tx) => Promise<T>) => transaction(fn),
  })
  const services: readonly Service[] = [signals, cluster, jobs]
  const version = packageJson.version
  const rest = { serving: { value: false }, offSignals: { value: null } }
  return { runtime, version, signals, cluster, jobs, transaction, services, ...rest }
}

function mountRoutes(app: HostApp, options: ResolvedOptions, assembly: Assembly): () => void {
  const { clock, log } = assembly.runtime
  const { authorize, title } = options.dashboard
  const handler = createRoutes({
    policy: { authorize, development: isDevelopment(), clock, log },
    title,
    log,
    serving: () => assembly.serving.value,
    ready: () => assembly.serving.value && assembly.cluster.trusted,
    page: () => readPage({ ...assembly, stop: () => Promise.resolve() }),
  })
  const mounted = mount(app, options.path, handler)
  return () => mounted?.release(handler)
}

async function start(
  options: ResolvedOptions,
  parts: RuntimeParts,
  services: readonly Service[],
): Promise<void> {
  const { db, clock, log } = parts.runtime
  const { startTimeout: timeoutMs, migrate: mode } = options
  const work = async (): Promise<void> => {
    await prepareDatabase({ source: db.source, schema: db.schema, clock, logger: log, mode, timeoutMs })
    await startAll(services)
  }
  const working = work()
  const late = (): Error => new ForgeError('FORGE_START_TIMEOUT', `${timeoutMs} ms.`)
  // A little later than the wait for the server, whose own error says more.
  await within(clock, timeoutMs + 500, working, late).catch(async (error: unknown) => {
    await stopAll(services)
    await working.catch(() => {})
    throw error
  })
}

interface Stopping {
  readonly parts: RuntimeParts
  readonly assembly: Assembly
  readonly release: () => void
  readonly deadlineMs: number
}

async function stop(given: Attachment, { parts, assembly, release, deadlineMs }: Stopping): Promise<void> {
  assembly.serving.value = false
  await assembly.cluster.drain()
  const failure = await stopAll(assembly.services, deadlineMs)
  await parts.close()
  release()
  given.setEngine(null)
  assembly.offSignals.value?.()
  if (failure) parts.runtime.log.error(`forge: stop left something behind: ${messageOf(failure)}`)
}
