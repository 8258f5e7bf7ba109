import { checkTx, onCommit, type Session, type Statement } from '../database/index.js'
import {
  codeOf,
  encodeStrict,
  ForgeError,
  idFactory,
  invalidOption,
  isConnectionError,
  sleep,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import type { CommitWatch } from './commits.js'
import type { JobSpec } from './define.js'
import { type EnqueueOptions, type EnqueueWish, readEnqueueOptions } from './enqueue-options.js'
import { DueGuess } from './due-guess.js'
import { announce, topics } from './hints.js'
import {
  type Enqueued,
  insertBulk,
  type Inserted,
  insertOne,
  insertRows,
  isBulk,
  isOneStatement,
  type Send,
} from './insert.js'
import type { Lanes } from './lanes.js'
import { gatesOf } from './limits.js'
import { inputLimits } from './options.js'
import { Outbox } from './outbox.js'
import type { LaneKey } from './queries/enqueue.js'
import { isPlain, type Row, type RowExtra, type RowKey } from './rows.js'
import type { Slots } from './slots.js'
import { keyBy } from './unique.js'
import { validate } from './validate.js'

export type { EnqueueOptions } from './enqueue-options.js'
export type { Enqueued, EnqueueReason } from './insert.js'

export interface EnqueuerParts {
  readonly runtime: Runtime
  readonly lanes: Lanes
  readonly commits: CommitWatch
  readonly slots: Slots
  readonly admission: Admission
  /** For unique jobs: a key that somebody holds in a transaction is waited for, and holds up unique jobs only. */
  readonly keys: Session
}

/** What all jobs of one call have in common. */
interface Call {
  readonly spec: JobSpec
  readonly wish: EnqueueWish
  readonly lane: LaneKey
}

const bulkMax = 100_000
/** How long a call is repeated over broken connections before it fails; each try carries the same ids. */
const persistMs = 10_000
/** Deadlock and serialization failure: the whole of it was rolled back. */
const repeatable = new Set(['40P01', '40001', 'FORGE_COMMIT_UNKNOWN'])

/** Puts jobs into the table: alone, in bulk, or in the caller's transaction. */
export class Enqueuer {
  readonly #parts: EnqueuerParts
  readonly #nextId: () => string
  readonly #plain = new Outbox((rows) => this.#insertOwn(rows))
  readonly #keyed = new Outbox((rows) => this.#insertOwn(rows))
  readonly #dues: DueGuess

  constructor(parts: EnqueuerParts) {
    this.#parts = parts
    const { clock } = parts.runtime
    this.#nextId = idFactory(() => clock.wallMs())
    this.#dues = new DueGuess(clock)
  }

  /**
   * One job. Resolves when it is durable, or, with `tx`, when it stands in the transaction.
   * @throws ForgeError FORGE_INPUT_…, FORGE_KEY_INVALID, FORGE_TX_…, FORGE_OPTION_…, FORGE_CONNECTION_LOST
   */
  one(spec: JobSpec, input: unknown, options?: EnqueueOptions): Promise<Enqueued> {
    let row: Row
    try {
      const call = readCall(spec, options)
      const json = encodeStrict(input, inputLimits)
      const lane = this.#parts.lanes.known(call.lane)
      if (spec.input !== undefined || lane === undefined)
        return this.#oneLater(call, { input, json }, options)
      row = this.#rowOf(call, { lane, json, parsed: input })
    } catch (error) {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- what a getter of the input threw
      return Promise.reject(error)
    }
    return this.#put(row, options)
  }

  async #oneLater(call: Call, given: Given, options: EnqueueOptions | undefined): Promise<Enqueued> {
    const parsed = await check(call.spec, given)
    const lane = await this.#laneOf(call.lane)
    return this.#put(this.#rowOf(call, { lane, json: given.json, parsed }), options)
  }

  async #put(row: Row, options: EnqueueOptions | undefined): Promise<Enqueued> {
    if (options?.tx !== undefined) return (await this.#insertIn(options.tx, [row]))[0] as Enqueued
    return (row.unique ? this.#keyed : this.#plain).put(row)
  }

  /** Many jobs, all or none. At most 100,000. */
  async many(spec: JobSpec, inputs: readonly unknown[], options?: EnqueueOptions): Promise<Enqueued[]> {
    if (!Array.isArray(inputs))
      throw invalidOption('The first argument of enqueueMany', 'must be a list of inputs')
    if (inputs.length > bulkMax) throw invalidOption('enqueueMany', `takes at most ${bulkMax} inputs`)
    if (options?.id !== undefined)
      throw invalidOption('Option id', 'names one job; enqueueMany makes its own ids')
    const call = readCall(spec, options)
    // Read before anything is waited for, whatever the caller does with the list later.
    const given = Array.from(inputs as unknown[], (input) => ({
      input,
      json: encodeStrict(input, inputLimits),
    }))
    if (given.length === 0) return []
    const parsed: unknown[] = []
    for (const one of given) parsed.push(spec.input === undefined ? one.input : await check(spec, one))
    const lane = await this.#laneOf(call.lane)
    const rows = given.map(({ json }, at) => this.#rowOf(call, { lane, json, parsed: parsed[at] }))
    return options?.tx === undefined ? this.#insertOwn(rows, isBulk(rows)) : this.#insertIn(options.tx, rows)
  }

  async #laneOf(lane: LaneKey): Promise<number> {
    if (this.#parts.lanes.known(lane) === undefined) {
      const made = await this.#persist(() => this.#parts.lanes.resolve([lane]))
      // Workers learn of new lanes when they look; a hint about a queue alone would not tell them.
      if (made) this.#parts.runtime.signals.hint(topics.later, lane.queue)
    }
    return this.#parts.lanes.known(lane) as number
  }

  /** `parsed`: what `run` will get, for those who make a key of it. */
  #rowOf(
    { spec, wish, lane: { queue } }: Call,
    { lane, json, parsed }: { readonly lane: number; readonly json: string; readonly parsed: unknown },
  ): Row {
    const queueLimited = this.#parts.slots.isLimited(queue)
    return {
      id: wish.id ?? this.#nextId(),
      ownId: wish.id !== undefined,
      lane,
      queue,
      priority: wish.priority ?? spec.priority,
      attemptsMax: spec.retry.attempts,
      delayMs: wish.delayMs,
      runAt: wish.runAt,
      json,
      extra: extraOf(wish, gatesOf(spec, { queue, key: wish.key, input: parsed, queueLimited })),
      unique: keyOf(spec, parsed, wish),
    }
  }

  /** On forge's own connection, over broken ones too: the ids are ours, so a repeat cannot make a second job. */
  async #insertOwn(rows: readonly Row[], bulk = false): Promise<Enqueued[]> {
    const inserted = await this.#persist((repeat) =>
      bulk && !repeat
        ? this.#parts.runtime.db.control.transaction((run, copy) => insertBulk(rows, run, copy))
        : this.#insertOnce(rows, repeat),
    )
    this.#tell(inserted)
    return inserted.answers
  }

  #insertOnce(rows: readonly Row[], repeat: boolean): Promise<Inserted> {
    const { db } = this.#parts.runtime
    const [first] = rows as [Row]
    const now = first.delayMs === null && first.runAt === null
    if (rows.length === 1 && now && !repeat && isPlain(first)) return insertOne(first, db, this.#dues)
    const control = first.unique ? this.#parts.keys : db.control
    const send: Send = (statement, values) => control.run(statement, values)
    const careful = repeat || rows.some((row) => row.ownId)
    if (isOneStatement(rows, careful)) return insertRows(rows, { send, careful })
    return control.transaction((run) => insertRows(rows, { send: run, careful }))
  }

  async #insertIn(given: unknown, rows: readonly Row[]): Promise<Enqueued[]> {
    const tx = checkTx(given)
    const { schema } = this.#parts.runtime.db
    const inserted = await insertRows(rows, {
      send: async <R>(statement: Statement<R>, values: readonly unknown[]) =>
        (await tx.query(statement.text(schema), [...values]).catch(explainTx)).rows as R[],
      careful: rows.some((row) => row.ownId),
    })
    const tell = (): void => this.#tell(inserted)
    if (!onCommit(tx, tell) && inserted.xid) this.#parts.commits.watch(inserted.xid, tell)
    return inserted.answers
  }

  /** After the commit: workers hear of what is ready, admission of what is blocked. */
  #tell({ made, gates }: Inserted): void {
    announce(this.#parts.runtime.signals, made)
    if (gates.length > 0) this.#parts.admission.request([...new Set(gates)])
  }

  async #persist<T>(attempt: (repeat: boolean) => Promise<T>): Promise<T> {
    const { clock } = this.#parts.runtime
    const until = clock.monotonicMs() + persistMs
    for (let tries = 0; ; tries++) {
      try {
        return await attempt(tries > 0)
      } catch (error) {
        const worth = isConnectionError(error) || repeatable.has(codeOf(error))
        if (!worth || clock.monotonicMs() > until) throw error
        await sleep(clock, 100 + Math.random() * 300)
      }
    }
  }
}

function readCall(spec: JobSpec, options: EnqueueOptions | undefined): Call {
  const wish = readEnqueueOptions(options)
  if (options?.tx !== undefined) checkTx(options.tx)
  checkAgainst(spec, wish)
  const queue = wish.queue ?? spec.queue
  return { spec, wish, lane: { queue, name: spec.name, version: 1, capability: spec.capability } }
}

/** Options that only some definitions take. */
function checkAgainst(spec: JobSpec, wish: EnqueueWish): void {
  if (wish.key !== undefined && spec.unique === null && !spec.limits.concurrency && !spec.limits.rate)
    throw invalidOption(
      'Option key',
      `is for definitions with unique, concurrency or rate; '${spec.name}' has none`,
    )
  if (spec.unique?.mode === 'debounce' && (wish.delayMs !== null || wish.runAt !== null))
    throw invalidOption('Options delay and runAt', `do not go with '${spec.name}', which is debounced`)
}

interface Given {
  readonly input: unknown
  readonly json: string
}

/** What run() will see is the JSON image, so that is what must satisfy the schema. Gives what the schema makes of it. */
async function check(spec: JobSpec, { input, json }: Given): Promise<unknown> {
  if (spec.input === undefined) return input
  const image: unknown = input === undefined ? undefined : JSON.parse(json)
  return validate(spec.input, image, { what: `The input of '${spec.name}'`, code: 'FORGE_INPUT_INVALID' })
}

function extraOf({ tags, parent }: EnqueueWish, gates: readonly string[] | null): RowExtra | null {
  return gates === null && tags === null && parent === null ? null : { gates, tags, parent }
}

function keyOf({ name, unique }: JobSpec, input: unknown, wish: EnqueueWish): RowKey | null {
  if (unique === null) return null
  const { by, mode, windowMs, maxWaitMs } = unique
  const key = wish.key ?? (by ? keyBy(by, input, `${name}.unique.by`) : null)
  return { scope: name, key, mode, windowMs, maxWaitMs }
}

/** The driver cannot always tell beforehand that a statement of the transaction failed; the server does. */
function explainTx(error: unknown): never {
  if (codeOf(error) !== '25P02') throw error
  throw new ForgeError('FORGE_TX_FINISHED', 'A statement of it had failed.', { cause: error })
}
