import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { serverAccount } from './account.js'
import { locateBinaries, usableBinaries } from './binaries.js'
import { inUse, waitUntilUnclaimed } from './claim.js'
import { prepareData, type DataFolder, type DataSpec } from './data.js'
import { GuardedServer } from './guarded.js'
import { planOf, type EmbeddedOptions, type EmbeddedPlan } from './options.js'
import { freePort } from './port.js'

/** Crash recovery comes before ready. */
const startMsMax = 60_000
/** A fast stop writes a checkpoint; after this it is made an immediate one, which the next start recovers from. */
const fastStopMsMax = 30_000
const quitMsMax = 10_000
const portTries = 5

export interface EmbeddedPostgres {
  /** Connection string of the superuser `postgres` and the database `postgres`, with the folder's password. */
  readonly url: string
  readonly port: number
  readonly dataDir: string
  /** Of the server; undefined while it is stopped. */
  readonly pid: number | undefined
  /** Starts again after stop() or a crash, on the same port. Nothing happens when it runs. */
  start(): Promise<void>
  /**
   * `fast` (default) ends all connections and shuts down in order; `immediate` is a crash without the damage: no
   * checkpoint, and the next start recovers. Nothing happens when it is stopped. The data stay, for start(); a
   * server with `keep: false` is to be disposed in the end.
   */
  stop(mode?: 'fast' | 'immediate'): Promise<void>
  /** stop(), and with `keep: false` also removes the data that startEmbedded() made. */
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Starts a PostgreSQL server of this process's own; the first start on a folder takes one to three seconds, later
 * ones a tenth of a second. Works as root (the server then runs as user 65534) and as any other user.
 * @throws ForgeError FORGE_EMBEDDED_MISSING (package not installed), FORGE_EMBEDDED_IN_USE (a server runs on the data
 * folder), FORGE_EMBEDDED_FAILED (with the last lines of its log), FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID
 */
export async function startEmbedded(options: EmbeddedOptions = {}): Promise<EmbeddedPostgres> {
  const plan = planOf(options)
  const account = serverAccount()
  const binaries = await usableBinaries(await locateBinaries(plan.packageName, plan.cwd), account)
  const spec = { plan, binaries, account }
  const folder = await prepareData(spec)
  const server = new EmbeddedServer(spec, folder)
  try {
    await server.start()
  } catch (error) {
    await server[Symbol.asyncDispose]()
    throw error
  }
  return server
}

class EmbeddedServer implements EmbeddedPostgres {
  readonly dataDir: string
  readonly #spec: DataSpec
  readonly #folder: DataFolder
  #port: number
  #run: GuardedServer | null = null
  /** start and stop take turns. */
  #turn: Promise<void> = Promise.resolve()

  constructor(spec: DataSpec, folder: DataFolder) {
    this.#spec = spec
    this.#folder = folder
    this.#port = spec.plan.port
    this.dataDir = folder.dir
  }

  get port(): number {
    return this.#port
  }

  get url(): string {
    const password = this.#folder.password === null ? '' : `:${this.#folder.password}`
    return `postgres://postgres${password}@127.0.0.1:${this.#port}/postgres`
  }

  get pid(): number | undefined {
    return this.#run?.pid
  }

  start(): Promise<void> {
    return this.#inTurn(() => this.#start())
  }

  stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    return this.#inTurn(() => this.#stop(mode))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#removes) return this.stop()
    await this.#inTurn(() => this.#stop('remove'))
    await rm(this.dataDir, { recursive: true, force: true })
  }

  get #removes(): boolean {
    return this.#folder.created && !this.#spec.plan.keep
  }

  #inTurn(action: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(action)
    this.#turn = done.catch(() => {})
    return done
  }

  async #start(): Promise<void> {
    if (this.#run && !this.#run.hasEnded) return
    await waitUntilUnclaimed(this.dataDir)
    const fixed = this.#port !== 0
    for (let attempt = 0; ; attempt++) {
      const port = fixed ? this.#port : await freePort(this.dataDir, attempt)
      const run = new GuardedServer(this.#launchSpec(port))
      try {
        await run.ready(startMsMax)
      } catch (error) {
        await quit(run, 'QUIT')
        if (run.log.saw(/lock file "postmaster\.pid" already exists/)) throw inUse(this.dataDir)
        // Someone took the port between the probe and the server.
        if (fixed || attempt >= portTries || !run.log.saw(/could not bind/)) throw error
        continue
      }
      run.hold(false)
      this.#port = port
      this.#run = run
      return
    }
  }

  async #stop(mode: 'fast' | 'immediate' | 'remove'): Promise<void> {
    const run = this.#run
    if (!run || run.hasEnded) return
    run.hold(true)
    if (mode === 'fast') {
      run.say('INT')
      if (await run.ended(fastStopMsMax)) return
    }
    if (!(await quit(run, mode === 'remove' ? 'END' : 'QUIT'))) throw run.failure('The server did not stop.')
  }

  #launchSpec(port: number) {
    const { plan, binaries, account } = this.#spec
    const settings = Object.entries(serverSettings(plan, port)).flatMap(([name, value]) => [
      '-c',
      `${name}=${value}`,
    ])
    return {
      command: [join(binaries.native, 'bin', 'postgres'), '-D', this.dataDir, ...settings],
      account,
      removeDir: this.#removes ? this.dataDir : null,
    }
  }
}

/** false: it is still there. */
async function quit(run: GuardedServer, word: 'QUIT' | 'END'): Promise<boolean> {
  run.say(word)
  if (await run.ended(quitMsMax)) return true
  run.say('KILL')
  return run.ended(quitMsMax)
}

/** Later ones win: what the caller may change comes first, what the launcher depends on last. */
function serverSettings(plan: EmbeddedPlan, port: number): Record<string, string> {
  const relaxed = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }
  return {
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...(plan.durable ? {} : relaxed),
    ...plan.settings,
    max_connections: String(plan.maxConnections),
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    logging_collector: 'off',
    log_destination: 'stderr',
    lc_messages: 'C',
  }
}
