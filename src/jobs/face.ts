import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Tx } from '../database/index.js'
import { type Duration, type Logger, NotAttached } from '../kernel/index.js'
import type { Span } from '../runtime/index.js'
import { type JobRegistry, type JobSettings, readDefinition } from './define.js'
import type { Enqueued, EnqueueOptions, EnqueueReason } from './enqueue.js'
import type { HandlerOutcome } from './outcome.js'

/** What a value looks like after a trip through JSON. */
export type Json<T> = T extends string | number | boolean | null
  ? T
  : T extends bigint
    ? string
    : T extends { toJSON(): infer J }
      ? Json<J>
      : T extends (...args: never[]) => unknown
        ? never
        : T extends readonly (infer E)[]
          ? Json<E>[]
          : T extends object
            ? { [K in keyof T as T[K] extends (...args: never[]) => unknown ? never : K]: JsonProperty<T[K]> }
            : T extends undefined | void
              ? null
              : unknown extends T
                ? unknown
                : T

/** A property that is undefined is left out; in a list, or alone, undefined becomes null. */
type JsonProperty<T> = unknown extends T
  ? Json<T>
  : undefined extends T
    ? Json<Exclude<T, undefined>> | undefined
    : Json<T>

/** The result that `result()` gives for what `run` returns: outcomes such as snooze are not results. */
export type ResultOf<R> = Json<Exclude<Awaited<R>, HandlerOutcome>>

/** A job with a schema for its input, and perhaps for its output. */
export interface SchemaJob<S extends StandardSchemaV1, O extends StandardSchemaV1, R> extends JobSettings<
  StandardSchemaV1.InferOutput<S>
> {
  /** Any Standard Schema. Checked at enqueue; stored raw; parsed again at run, which gets its output. */
  readonly input: S
  /** Checked against what `run` returns; gives the result its type. */
  readonly output?: O
  run(input: StandardSchemaV1.InferOutput<S>, job: JobContext): R
}

/** A job without a schema: the input is what JSON carries. */
export interface PlainJob<In, O extends StandardSchemaV1, R> extends JobSettings<In> {
  readonly input?: undefined
  readonly output?: O
  run(input: In, job: JobContext): R
}

type Result<O extends StandardSchemaV1, R> = StandardSchemaV1 extends O
  ? ResultOf<R>
  : Json<StandardSchemaV1.InferOutput<O>>

/** One enqueued job, as the caller holds it. */
export interface JobHandle<Out> {
  readonly id: string
  /** False: no new job was made; `id` is that of the standing one, and `reason` says why. */
  readonly created: boolean
  /**
   * Absent when `created`. `exists`: the id was used before. For unique definitions, another job has the key:
   * `duplicate`, it stays as it is (onConflict 'skip'; with 'replace' it finished within `for`); `replaced` and
   * `debounced`, it had not started and has taken over this input; `running`, it runs, and this input is dropped.
   */
  readonly reason?: EnqueueReason
  /**
   * Waits for the job's result. Default timeout 30 s.
   * @throws ForgeError FORGE_RESULT_TIMEOUT, FORGE_JOB_DISCARDED (cause: its last error), FORGE_JOB_CANCELLED,
   * FORGE_JOB_QUARANTINED, FORGE_RESULT_TOO_LARGE, FORGE_RESULT_NOT_KEPT
   */
  result(options?: { readonly timeout?: Duration }): Promise<Out>
  /** Cancels it: at once while it waits, by its signal while it runs. False: it was finished already. */
  cancel(reason?: string): Promise<boolean>
}

type InputArgs<In> = unknown extends In
  ? [input?: In, options?: EnqueueOptions]
  : undefined extends In
    ? [input?: In, options?: EnqueueOptions]
    : [input: In, options?: EnqueueOptions]

/** A defined job. */
export interface JobDefinition<In, Out> {
  readonly name: string
  /**
   * Makes one job; resolves when it is durable (with `tx`: when it stands in your transaction).
   * @throws NotAttached before attach; ForgeError FORGE_INPUT_…, FORGE_KEY_INVALID, FORGE_TX_…, FORGE_OPTION_…
   */
  enqueue(...args: InputArgs<In>): Promise<JobHandle<Out>>
  /** Makes many jobs, all or none. */
  enqueueMany(inputs: readonly In[], options?: Omit<EnqueueOptions, 'id'>): Promise<JobHandle<Out>[]>
}

/** The second argument of `run(input, job)`. */
export interface JobContext {
  readonly id: string
  readonly name: string
  readonly queue: string
  /** This attempt, from 1. */
  readonly attempt: number
  /** All attempts the job has. */
  readonly attempts: number
  /** Aborts on timeout, cancel, shutdown and loss of the lease; its reason says which (a ForgeError). */
  readonly signal: AbortSignal
  /** When the timeout falls, by this machine's clock. */
  readonly deadline: Date
  /** For stores outside PostgreSQL: `n` rises with each claim of the job, `token` is unique to this one. */
  readonly fence: { readonly token: string; readonly n: number }
  readonly log: Logger
  readonly span: Span
  /** Percent from 0 to 100 and a short message, for people who watch. Written at most twice a second. */
  progress(percent: number, message?: string): void
  enqueue<In, Out>(job: JobDefinition<In, Out>, input: In, options?: EnqueueOptions): Promise<JobHandle<Out>>
  /** Another job of this same definition. */
  again(input: unknown, options?: EnqueueOptions): Promise<JobHandle<unknown>>
  /**
   * A transaction on the host's pool that holds this claim: while it runs nobody else can take the job over.
   * @throws ForgeError FORGE_LEASE_LOST before `fn` is called when the claim is lost
   */
  transaction<T>(fn: (tx: Tx) => Promise<T>): Promise<T>
  /**
   * Finishes the job in your transaction: its effects and the completion commit together, once. What the handler
   * returns afterwards is ignored. If the transaction does not commit, the attempt fails.
   * @throws ForgeError FORGE_LEASE_LOST, FORGE_TX_…
   */
  complete(result: unknown, options: { readonly tx: Tx }): Promise<void>
  /** `return job.snooze('5m')`: run again later, without using an attempt. */
  snooze(delay: Duration): HandlerOutcome
  /** `return job.cancel('why')`: end as cancelled. */
  cancel(reason: string): HandlerOutcome
  /** `return job.discard('why')`: give up now, as a dead letter. */
  discard(reason: string): HandlerOutcome
}

/** What definitions call once their instance is attached. */
export interface JobEngine {
  enqueue(name: string, input: unknown, options?: EnqueueOptions): Promise<JobHandle<unknown>>
  enqueueMany(
    name: string,
    inputs: readonly unknown[],
    options?: EnqueueOptions,
  ): Promise<JobHandle<unknown>[]>
}

/** The engine of the moment: null before attach and after stop; a promise while starting. */
export type EngineSource = () => JobEngine | Promise<JobEngine> | null

export interface DefineJob {
  /**
   * Defines a job.
   * @throws DuplicateName in production for a name that is taken; ForgeError FORGE_JOB_NAME_INVALID, FORGE_OPTION_…
   */
  <S extends StandardSchemaV1, R, O extends StandardSchemaV1 = StandardSchemaV1>(
    name: string,
    definition: SchemaJob<S, O, R>,
  ): JobDefinition<StandardSchemaV1.InferInput<S>, Result<O, R>>
  <In, R, O extends StandardSchemaV1 = StandardSchemaV1>(
    name: string,
    definition: PlainJob<In, O, R>,
  ): JobDefinition<In, Result<O, R>>
}

export function createDefineJob(registry: JobRegistry, engine: EngineSource): DefineJob {
  // No promise in between while it is attached: the input is read before the call returns, whatever becomes of it later.
  const withEngine = <T>(call: (engine: JobEngine) => Promise<T>): Promise<T> => {
    const found = engine()
    if (!found) return Promise.reject(new NotAttached())
    return found instanceof Promise ? found.then(call) : call(found)
  }
  const define = (name: string, definition: unknown): JobDefinition<unknown, unknown> => {
    registry.add(readDefinition(name, definition))
    return Object.freeze({
      name,
      enqueue: (input?: unknown, options?: EnqueueOptions) =>
        withEngine((jobs) => jobs.enqueue(name, input, options)),
      enqueueMany: (inputs: readonly unknown[], options?: Omit<EnqueueOptions, 'id'>) =>
        withEngine((jobs) => jobs.enqueueMany(name, inputs, options)),
    })
  }
  return define
}

/** What a handle needs of the engine. */
export interface HandleParts {
  result(
    id: string,
    options: { readonly timeout?: Duration } | undefined,
    committed: boolean,
  ): Promise<unknown>
  cancel(id: string, reason: string | undefined): Promise<boolean>
}

export function createHandle(made: Enqueued, committed: boolean, parts: HandleParts): JobHandle<unknown> {
  return {
    id: made.id,
    created: made.created,
    ...(made.reason === undefined ? {} : { reason: made.reason }),
    // Async, so that a malformed timeout rejects and does not throw.
    result: async (options) => parts.result(made.id, options, committed),
    cancel: (reason) => parts.cancel(made.id, reason),
  }
}
