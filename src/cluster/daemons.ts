import {
  asRecord,
  backoffMs,
  ForgeError,
  invalidOption,
  type Logger,
  messageOf,
  type Service,
  sleep,
  unknownOption,
} from '../kernel/index.js'
import { Registry, type Runtime } from '../runtime/index.js'
import type { LeaderPost, Term } from './campaign.js'
import type { ClusterService } from './service.js'

/** What a daemon's `run` is given. */
export interface DaemonContext {
  readonly name: string
  /** Aborts when the node stops, or leads the daemon no longer: then `run` should end. */
  readonly signal: AbortSignal
  /** Fences what it writes, as of `node.whileLeading`; null with `everyNode`. */
  readonly term: Term | null
  readonly log: Logger
}

export interface DaemonOptions {
  /**
   * Goes on until its signal aborts. When it returns before that it is called again after a second; when it throws, after
   * a pause that grows to a minute, on whichever node leads then.
   */
  run(daemon: DaemonContext): Promise<void> | void
  /** On each worker node instead of on one of them. Default false. */
  readonly everyNode?: boolean
}

/** A daemon as it was defined. */
export interface Daemon {
  readonly name: string
}

export interface DaemonSpec extends Required<Pick<DaemonOptions, 'run' | 'everyNode'>> {
  readonly name: string
}

export class DaemonRegistry extends Registry<DaemonSpec> {}

const known = ['run', 'everyNode']

/** @throws ForgeError FORGE_OPTION_INVALID, FORGE_OPTION_UNKNOWN */
export function readDaemon(name: unknown, options: unknown): DaemonSpec {
  if (typeof name !== 'string' || !/^[a-z0-9][a-z0-9._:/-]{0,99}$/i.test(name))
    throw invalidOption(
      'The name of a daemon',
      'must be 1 to 100 letters, digits, dots, dashes, underscores, colons and slashes',
    )
  const record = asRecord(options, `The options of daemon '${name}'`)
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  const { run, everyNode = false } = record
  if (typeof run !== 'function') throw invalidOption(`run of daemon '${name}'`, 'must be a function')
  if (typeof everyNode !== 'boolean')
    throw invalidOption(`everyNode of daemon '${name}'`, 'must be true or false')
  return Object.freeze({ name, run: run as DaemonSpec['run'], everyNode })
}

const pause = { kind: 'exponential', baseMs: 1_000, maxMs: 60_000, jitter: 0.25 } as const
const againMs = 1_000
/** Whoever ignores its signal for so long is not waited for. */
const settleMs = 1_000

/** What runs of one definition in this process. */
interface Running {
  stop(): Promise<void>
}

/** Keeps the daemons of this process running. */
export class DaemonService implements Service {
  readonly name = 'daemons'
  readonly #runtime: Runtime
  readonly #cluster: ClusterService
  readonly #registry: DaemonRegistry
  readonly #running = new Map<string, Running>()
  #stopped = false
  #off: () => void = () => {}

  constructor(runtime: Runtime, cluster: ClusterService, registry: DaemonRegistry) {
    this.#runtime = runtime
    this.#cluster = cluster
    this.#registry = registry
  }

  start(): Promise<void> {
    if (this.#runtime.config.roles.includes('worker')) {
      this.#off = this.#registry.onChange((spec) => void this.#replace(spec))
      for (const spec of this.#registry.all()) this.#begin(spec)
    }
    return Promise.resolve()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#off()
    const patience = sleep(this.#runtime.clock, settleMs)
    await Promise.race([patience, Promise.all([...this.#running.values()].map((running) => running.stop()))])
  }

  /** The old one ends before the new one begins. */
  async #replace(spec: DaemonSpec): Promise<void> {
    await this.#running.get(spec.name)?.stop()
    if (this.#registry.get(spec.name) === spec) this.#begin(spec)
  }

  #begin(spec: DaemonSpec): void {
    if (this.#stopped || this.#cluster.draining) return
    this.#running.set(spec.name, spec.everyNode ? this.#onEach(spec) : this.#onOne(spec))
  }

  #onOne(spec: DaemonSpec): LeaderPost {
    return this.#cluster.lead(`daemon:${spec.name}`, async ({ term, signal }) => {
      while (!signal.aborted) {
        await spec.run(this.#contextOf(spec, signal, term))
        await sleep(this.#runtime.clock, againMs, signal)
      }
    })
  }

  #onEach(spec: DaemonSpec): Running {
    const abort = new AbortController()
    const ended = this.#loop(spec, abort.signal)
    return {
      stop: () => {
        abort.abort(new ForgeError('FORGE_STOPPED'))
        return ended
      },
    }
  }

  async #loop(spec: DaemonSpec, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#runtime
    for (let failures = 0; !signal.aborted;) {
      const beganMs = clock.monotonicMs()
      try {
        await spec.run(this.#contextOf(spec, signal, null))
        failures = 0
      } catch (error) {
        failures = clock.monotonicMs() - beganMs > pause.maxMs ? 1 : failures + 1
        if (!signal.aborted) log.error(`forge: daemon '${spec.name}' failed: ${messageOf(error)}`)
      }
      const ms = failures === 0 ? againMs : backoffMs(pause, failures, Math.random())
      await sleep(clock, ms, signal)
    }
  }

  #contextOf({ name }: DaemonSpec, signal: AbortSignal, term: Term | null): DaemonContext {
    return Object.freeze({ name, signal, term, log: this.#runtime.log })
  }
}
