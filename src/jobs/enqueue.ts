import { checkTx, onCommit, type Tx } from '../database/index.js'
import {
  asRecord,
  codeOf,
  durationMs,
  type Duration,
  encodeStrict,
  ForgeError,
  idFactory,
  invalidOption,
  isConnectionError,
  isUuid,
  sleep,
  unknownOption,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { CommitWatch } from './commits.js'
import { type JobSpec, readPriority } from './define.js'
import { hintReady, topics } from './hints.js'
import type { Priority } from './job.js'
import type { Lanes } from './lanes.js'
import { checkName } from './names.js'
import { inputLimits } from './options.js'
import { insertJobs, type LaneKey, removeFinishedTwins } from './queries/enqueue.js'
import { validate } from './validate.js'

/** Options of one enqueue call. */
export interface EnqueueOptions {
  /** Your open transaction: the job exists when it commits, and never if it does not. */
  readonly tx?: Tx
  /** Not before so long from now, by the database clock. */
  readonly delay?: Duration
  /** Not before this moment. Not together with `delay`. */
  readonly runAt?: Date
  readonly priority?: Priority
  readonly queue?: string
  /** A UUID of your own (version 7 is best): repeating the call with it is harmless. */
  readonly id?: string
}

/** What one enqueue came to. */
export interface Enqueued {
  readonly id: string
  /** False: a job of this id was there already. */
  readonly created: boolean
}

interface Row {
  readonly id: string
  readonly ownId: boolean
  readonly lane: number
  readonly queue: string
  readonly priority: number
  readonly attemptsMax: number
  readonly delayMs: number | null
  readonly runAt: Date | null
  readonly json: string
}

interface Waiting {
  readonly row: Row
  resolve(result: Enqueued): void
  reject(error: unknown): void
}

const known = ['tx', 'delay', 'runAt', 'priority', 'queue', 'id']
/** Rows of one statement; the rest of a larger call follows in the same transaction. */
const rowsPerStatement = 5_000
/** Characters of input in one statement: pg makes one string of them, and V8 ends strings at 512 MB. */
const charsPerStatement = 64_000_000
const bulkMax = 100_000
const batchMax = 1_000
/** How long a call is repeated over broken connections before it fails; each try carries the same ids. */
const persistMs = 10_000

/** Puts jobs into the table: alone, in bulk, or in the caller's transaction. */
export class Enqueuer {
  readonly #runtime: Runtime
  readonly #lanes: Lanes
  readonly #commits: CommitWatch
  readonly #nextId: () => string
  #waiting: Waiting[] = []
  #sending = false

  constructor(runtime: Runtime, lanes: Lanes, commits: CommitWatch) {
    this.#runtime = runtime
    this.#lanes = lanes
    this.#commits = commits
    this.#nextId = idFactory(() => runtime.clock.wallMs())
  }

  /**
   * One job. Resolves when it is durable, or, with `tx`, when it stands in the transaction.
   * @throws ForgeError FORGE_INPUT_…, FORGE_TX_…, FORGE_OPTION_…, FORGE_CONNECTION_LOST
   */
  async one(spec: JobSpec, input: unknown, options?: EnqueueOptions): Promise<Enqueued> {
    const row = await this.#prepare(spec, input, options)
    if (options?.tx !== undefined) return (await this.#insertIn(options.tx, [row]))[0] as Enqueued
    return new Promise((resolve, reject) => {
      this.#waiting.push({ row, resolve, reject })
      void this.#send()
    })
  }

  /** Many jobs, all or none: one statement up to 5,000, one transaction beyond. At most 100,000. */
  async many(spec: JobSpec, inputs: readonly unknown[], options?: EnqueueOptions): Promise<Enqueued[]> {
    if (!Array.isArray(inputs))
      throw invalidOption('The first argument of enqueueMany', 'must be a list of inputs')
    if (inputs.length > bulkMax) throw invalidOption('enqueueMany', `takes at most ${bulkMax} inputs`)
    if (options?.id !== undefined)
      throw invalidOption('Option id', 'names one job; enqueueMany makes its own ids')
    const rows: Row[] = []
    for (const input of inputs) rows.push(await this.#prepare(spec, input, options))
    if (rows.length === 0) return []
    if (options?.tx !== undefined) return this.#insertIn(options.tx, rows)
    return this.#insertOwn(rows)
  }

  async #prepare(spec: JobSpec, input: unknown, options: EnqueueOptions | undefined): Promise<Row> {
    const when = readOptions(options)
    if (options?.tx !== undefined) checkTx(options.tx)
    const json = encodeStrict(input, inputLimits)
    // What run() will see is the JSON image, so that is what must satisfy the schema.
    const image: unknown = input === undefined ? undefined : JSON.parse(json)
    await validate(spec.input, image, { what: `The input of '${spec.name}'`, code: 'FORGE_INPUT_INVALID' })
    const queue = options?.queue === undefined ? spec.queue : checkName(options.queue, 'queue')
    const lane: LaneKey = { queue, name: spec.name, version: 1, capability: spec.capability }
    if (this.#lanes.known(lane) === undefined) await this.#makeLane(lane)
    return {
      ...when,
      id: options?.id?.toLowerCase() ?? this.#nextId(),
      ownId: options?.id !== undefined,
      lane: this.#lanes.known(lane) as number,
      queue,
      priority:
        options?.priority === undefined ? spec.priority : readPriority(options.priority, 'Option priority'),
      attemptsMax: spec.retry.attempts,
      json,
    }
  }

  async #makeLane(lane: LaneKey): Promise<void> {
    const made = await this.#persist(() => this.#lanes.resolve([lane]))
    // Workers learn of new lanes when they look; a hint about a queue alone would not tell them.
    if (made) this.#runtime.signals.hint(topics.later, lane.queue)
  }

  /** The first call goes at once; those that come while it is under way travel together in the next statement. */
  async #send(): Promise<void> {
    if (this.#sending) return
    this.#sending = true
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, batchMax)
      await this.#sendBatch(batch)
    }
    this.#sending = false
  }

  async #sendBatch(batch: readonly Waiting[]): Promise<void> {
    try {
      const results = await this.#insertOwn(batch.map((call) => call.row))
      batch.forEach((call, index) => call.resolve(results[index] as Enqueued))
    } catch (error) {
      // One row that cannot be written must not fail its neighbours.
      if (batch.length === 1 || isConnectionError(error)) for (const call of batch) call.reject(error)
      else for (const call of batch) await this.#sendBatch([call])
    }
  }

  /** On forge's own connection, over broken ones too: the ids are ours, so a repeat cannot make a second job. */
  async #insertOwn(rows: readonly Row[]): Promise<Enqueued[]> {
    const fresh = new Map<string, boolean>()
    await this.#persist((repeat) => this.#insertOnce(rows, fresh, repeat || rows.some((row) => row.ownId)))
    return this.#settle(rows, fresh)
  }

  async #insertOnce(rows: readonly Row[], fresh: Map<string, boolean>, careful: boolean): Promise<void> {
    const { control } = this.#runtime.db
    const parts = [...portions(rows)]
    if (!careful && parts.length === 1) {
      for (const row of await control.run(insertJobs, arraysOf(rows))) fresh.set(row.id, row.waits)
      return
    }
    const seen = await control.transaction(async (run) => {
      const inserted = new Map<string, boolean>()
      for (const part of parts) {
        const answer = await run(insertJobs, arraysOf(part))
        for (const row of answer) inserted.set(row.id, row.waits)
      }
      if (careful)
        for (const twin of await run(removeFinishedTwins, [[...inserted.keys()]])) inserted.delete(twin.id)
      return inserted
    })
    for (const [id, waits] of seen) fresh.set(id, waits)
  }

  #settle(rows: readonly Row[], fresh: ReadonlyMap<string, boolean>): Enqueued[] {
    for (const row of rows) this.#hint(row, fresh.get(row.id) ?? false)
    // An id of our own that was there already is the work of an earlier try of this same call.
    return rows.map((row) => ({ id: row.id, created: fresh.has(row.id) || !row.ownId }))
  }

  async #insertIn(given: unknown, rows: readonly Row[]): Promise<Enqueued[]> {
    const tx = checkTx(given)
    const text = insertJobs.text(this.#runtime.db.schema)
    const fresh = new Map<string, boolean>()
    let xid = ''
    for (const part of portions(rows)) {
      const answer = await tx.query(text, arraysOf(part)).catch(explainTx)
      for (const row of answer.rows as { id: string; waits: boolean; xid: string }[]) {
        fresh.set(row.id, row.waits)
        xid = row.xid
      }
    }
    if (rows.some((row) => row.ownId)) {
      const twins = await tx.query(removeFinishedTwins.text(this.#runtime.db.schema), [[...fresh.keys()]])
      for (const twin of twins.rows as { id: string }[]) fresh.delete(twin.id)
    }
    const announce = (): void => rows.forEach((row) => this.#hint(row, fresh.get(row.id) ?? false))
    if (!onCommit(tx, announce) && xid) this.#commits.watch(xid, announce)
    return rows.map((row) => ({ id: row.id, created: fresh.has(row.id) }))
  }

  #hint(row: Row, waits: boolean): void {
    hintReady(this.#runtime.signals, { lane: row.lane, waits, due: null })
  }

  async #persist<T>(attempt: (repeat: boolean) => Promise<T>): Promise<T> {
    const { clock } = this.#runtime
    const until = clock.monotonicMs() + persistMs
    for (let tries = 0; ; tries++) {
      try {
        return await attempt(tries > 0)
      } catch (error) {
        const worth =
          isConnectionError(error) || (error instanceof ForgeError && error.code === 'FORGE_COMMIT_UNKNOWN')
        if (!worth || clock.monotonicMs() > until) throw error
        await sleep(clock, 100 + Math.random() * 300)
      }
    }
  }
}

function readOptions(options: unknown): { delayMs: number | null; runAt: Date | null } {
  const record = asRecord(options, 'The options of enqueue')
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  const { delay, runAt, id } = record
  if (delay !== undefined && runAt !== undefined)
    throw invalidOption('Options delay and runAt', 'exclude each other')
  if (id !== undefined && !isUuid(id)) throw invalidOption('Option id', 'must be a UUID')
  if (runAt !== undefined && !isUsableDate(runAt)) throw invalidOption('Option runAt', 'must be a valid Date')
  return {
    delayMs: delay === undefined ? null : durationMs(delay, 'Option delay'),
    runAt: (runAt as Date | undefined) ?? null,
  }
}

function isUsableDate(value: unknown): boolean {
  // Between 1970 and 2200: PostgreSQL's own limits are wider, but a job there is a mistake of units.
  return value instanceof Date && value.getTime() >= 0 && value.getTime() < 7_258_118_400_000
}

/** The driver cannot always tell beforehand that a statement of the transaction failed; the server does. */
function explainTx(error: unknown): never {
  if (codeOf(error) !== '25P02') throw error
  throw new ForgeError('FORGE_TX_FINISHED', 'A statement of it had failed.', { cause: error })
}

/** Cuts rows into what one statement takes, by number and by size. */
function* portions(rows: readonly Row[]): Iterable<readonly Row[]> {
  let from = 0
  let chars = 0
  for (let at = 0; at < rows.length; at++) {
    chars += (rows[at] as Row).json.length
    if (at - from < rowsPerStatement && (chars <= charsPerStatement || at === from)) continue
    yield rows.slice(from, at)
    from = at
    chars = (rows[at] as Row).json.length
  }
  yield rows.slice(from)
}

function arraysOf(rows: readonly Row[]): unknown[] {
  return [
    rows.map((row) => row.id),
    rows.map((row) => row.lane),
    rows.map((row) => row.priority),
    rows.map((row) => row.attemptsMax),
    rows.map((row) => row.delayMs),
    rows.map((row) => row.runAt),
    rows.map((row) => row.json),
  ]
}
