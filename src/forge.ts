import packageJson from '../package.json' with { type: 'json' }
import {
  ClusterService,
  type Daemon,
  type DaemonOptions,
  DaemonRegistry,
  DaemonService,
  drainAsked,
  Maintenance,
  readDaemon,
} from './cluster/index.js'
import { type HostPool, transact, type Tx } from './database/index.js'
import {
  createRoutes,
  type HostApp,
  mount,
  type NodeView,
  stayAlive,
  stopOnSignals,
  warnOfSignals,
} from './host/index.js'
import {
  createDefineJob,
  type DefineJob,
  type JobEngine,
  JobRegistry,
  JobsService,
  type ManualParts,
} from './jobs/index.js'
import {
  AlreadyAttached,
  codeOf,
  deferred,
  ForgeError,
  isForgeError,
  type Logger,
  messageOf,
  quietLogger,
  resolveOptions,
  type Service,
  stopAll,
  within,
} from './kernel/index.js'
import { createNode, type ForgeNode, isReady, type NodeParts, readPage } from './node.js'
import { type AttachOptions, optionTable, type ResolvedOptions } from './options.js'
import { createRuntime, environment, isDevelopment, type Runtime } from './runtime/index.js'
import { createDefineCron, type DefineCron, ScheduleRegistry, SchedulesService } from './schedules/index.js'
import { bringUp, type Startable } from './start.js'

/** A forge: definitions, and at most one attached node at a time. */
export interface Forge {
  /** Defines a job. See `DefineJob`. */
  readonly job: DefineJob
  /** Defines a schedule. See `DefineCron`. */
  readonly cron: DefineCron
  /**
   * Defines a loop that runs on one worker node of the cluster (or on each), and is kept running: see `DaemonOptions`.
   * @throws ForgeError FORGE_OPTION_INVALID, FORGE_OPTION_UNKNOWN; DuplicateName in production
   */
  daemon(name: string, options: DaemonOptions): Daemon
  /**
   * Mounts forge on `app` (null: no HTTP), at once, and starts this process' roles on the database of `pool`.
   * Resolves when they run. A failed start is logged once and leaves nothing running or connected.
   * @throws AlreadyAttached; ForgeError FORGE_OPTION_…, FORGE_POOL_…, FORGE_DATABASE_…, FORGE_MIGRATION_…,
   * FORGE_SCHEMA_…, FORGE_PATH_TAKEN, FORGE_START_FAILED, FORGE_START_TIMEOUT
   */
  attach(app: HostApp, pool: HostPool, options?: AttachOptions): Promise<ForgeNode>
}

/**
 * The way in of forge/testing: a node whose jobs run when they are asked for. Neither an option nor a variable of the
 * environment leads to it, so that no production can come to stand without its workers by mistake. By its registered
 * name it is found on an instance of another copy of the package (ESM and CommonJS) as well.
 */
export const attachManual = Symbol.for('forge.attachManual')

export interface ManualAttachment {
  readonly node: ForgeNode
  readonly jobs: JobsService
}

export interface ManualForge extends Forge {
  [attachManual](pool: HostPool, options: AttachOptions, manual: ManualParts): Promise<ManualAttachment>
}

/** Another instance beside the default one: for tests, or for two databases in one process. */
export function createForge(): Forge {
  const registry = new JobRegistry()
  const daemons = new DaemonRegistry()
  const schedules = new ScheduleRegistry()
  /** Null: not attached. A promise: starting; early calls wait for it. */
  let engine: JobEngine | Promise<JobEngine> | null = null
  const begin = (given: Pick<Attachment, 'app' | 'pool' | 'raw' | 'manual'>): Promise<ManualAttachment> => {
    if (engine !== null) return Promise.reject(new AlreadyAttached())
    const starting = deferred<JobEngine>()
    starting.promise.catch(() => {})
    engine = starting.promise
    return attach({
      ...given,
      registry,
      daemons,
      schedules,
      started: ({ front }) => {
        engine = front
        starting.resolve(front)
      },
      ended: (error) => {
        engine = null
        starting.reject(error)
      },
    })
  }
  const forge: ManualForge = {
    job: createDefineJob(registry, () => engine),
    cron: createDefineCron(schedules, registry),
    daemon(name, options) {
      const spec = readDaemon(name, options)
      daemons.add(spec)
      return Object.freeze({ name: spec.name })
    },
    attach(app, pool, options) {
      const attaching = begin({ app, pool, raw: options }).then(({ node }) => node)
      // Not awaiting attach is fine: a failed start is logged, and must not end the host as an unhandled rejection.
      attaching.catch((error: unknown) => {
        logOf(options).error(`forge did not start: ${messageOf(error)}`, { code: codeOf(error) })
      })
      return attaching
    },
    [attachManual]: (pool, raw, manual) => begin({ app: null, pool, raw, manual }),
  }
  return Object.defineProperty(forge, attachManual, { enumerable: false })
}

/** The logger that was asked for, if that much can be read of options that may be wrong. */
function logOf(raw: AttachOptions | undefined): Logger {
  try {
    return optionTable.logger.read(raw?.logger, 'Option logger')
  } catch {
    return quietLogger
  }
}

interface Attachment {
  readonly app: HostApp
  readonly pool: HostPool
  readonly raw: AttachOptions | undefined
  readonly registry: JobRegistry
  readonly daemons: DaemonRegistry
  readonly schedules: ScheduleRegistry
  readonly manual?: ManualParts
  readonly started: (jobs: JobsService) => void
  /** After a failed start, with its error, and after stop. */
  readonly ended: (error?: unknown) => void
}

/** Synchronous up to its first await: the routes are mounted, and what can be refused is refused. */
async function attach(given: Attachment): Promise<ManualAttachment> {
  const front: Front = { view: null, release: () => {} }
  const ends = [stayAlive()]
  try {
    mountRoutes(front, given)
    const options = resolveOptions(optionTable, given.raw, environment())
    const assembly = await bringUp(() => assemble(given, options), options)
    const node = createNode({
      ...assembly,
      stop: (deadlineMs) => stop(given, assembly, { front, ends, deadlineMs }),
    })
    ends.push(heedSignals(given.app, node, assembly.runtime))
    front.view = viewOf(options, assembly)
    given.started(assembly.jobs)
    return { node, jobs: assembly.jobs }
  } catch (thrown) {
    const error = typed(thrown)
    front.release()
    for (const end of ends) end()
    given.ended(error)
    throw error
  }
}

function typed(error: unknown): ForgeError {
  if (isForgeError(error)) return error
  return new ForgeError('FORGE_START_FAILED', `${messageOf(error)}.`, { cause: error })
}

/** The routes and what they show: null while the node does not run. */
interface Front {
  view: NodeView | null
  release: () => void
}

/** The path is read apart from the rest, so that the probes answer also where another option is wrong. */
function mountRoutes(front: Front, { app, raw }: Attachment): void {
  const { path } = resolveOptions({ path: optionTable.path }, { path: raw?.path }, environment())
  front.release = mount(
    app,
    path,
    createRoutes(() => front.view),
  )
}

type Assembly = Omit<NodeParts, 'stop'> & Startable

/** The services of a node, in start order: this list is the architecture. Stop is the reverse. */
function assemble(given: Attachment, options: ResolvedOptions): Assembly {
  const { runtime, signals, close } = createRuntime(given.pool, options)
  const { version } = packageJson
  const transaction: NodeParts['transaction'] = (fn, how) =>
    transact({ pool: given.pool, clock: runtime.clock }, fn, how)
  const cluster = new ClusterService(runtime, options, version)
  const jobs = new JobsService({
    runtime,
    options,
    membership: cluster,
    registry: given.registry,
    works: options.roles.includes('worker'),
    transaction: <T>(fn: (tx: Tx) => Promise<T>) => transaction(fn),
    manual: given.manual,
  })
  runtime.news.on(drainAsked, () => jobs.drain())
  // In the manual mode of tests nothing runs that was not asked for.
  const leads = options.roles.includes('scheduler') && !given.manual
  const schedules = new SchedulesService({ runtime, cluster, jobs, registry: given.schedules, leads })
  const chores = [...cluster.chores, ...jobs.chores, ...schedules.chores]
  const byItself = given.manual
    ? []
    : [new Maintenance(runtime, cluster, chores), new DaemonService(runtime, cluster, given.daemons)]
  const services: readonly Service[] = [signals, cluster, jobs, schedules, ...byItself]
  const begun = (): Promise<void> => cluster.activate(() => jobs.gauges)
  return { runtime, version, signals, cluster, jobs, schedules, transaction, services, begun, close }
}

function viewOf(options: ResolvedOptions, assembly: Assembly): NodeView {
  const { clock, log } = assembly.runtime
  const { authorize, title } = options.dashboard
  return {
    policy: { authorize, development: isDevelopment(), clock, log },
    title,
    log,
    ready: () => isReady(assembly),
    page: () => readPage(assembly),
  }
}

function heedSignals(app: HostApp, node: ForgeNode, { config, clock, log }: Runtime): () => void {
  if (config.signals) return stopOnSignals(node)
  return app === null && config.roles.includes('worker') ? warnOfSignals(clock, log) : () => {}
}

const drainMs = 1_000
/** After the handlers' time: to write their ends and to say goodbye. Then the connections are dropped. */
const goodbyeMs = 8_000

interface Stopping {
  readonly front: Front
  readonly ends: readonly (() => void)[]
  readonly deadlineMs: number
}

async function stop(given: Attachment, assembly: Assembly, stopping: Stopping): Promise<void> {
  const { front, ends, deadlineMs } = stopping
  const { clock, db, log } = assembly.runtime
  const late = (): Error => new ForgeError('FORGE_DEADLINE')
  const patience = clock.timer(deadlineMs + goodbyeMs, () => db.source.abandon())
  front.view = null
  try {
    assembly.jobs.quiesce()
    // For others to see; a server that does not answer must not cost the handlers their time.
    await within(assembly.cluster.drain(), { clock, ms: drainMs, late }).catch(() => {})
    const failure = await stopAll(assembly.services, deadlineMs)
    if (failure) log.error(`forge: stop left something behind: ${messageOf(failure)}`)
    await assembly.close()
  } finally {
    patience.cancel()
    front.release()
    given.ended()
    for (const end of ends) end()
  }
}
