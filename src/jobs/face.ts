import type { StandardSchemaV1 } from '@standard-schema/spec'
import { type Duration, NotAttached } from '../kernel/index.js'
import type { JobContext } from './context.js'
import { type JobRegistry, type JobSettings, readDefinition } from './define.js'
import type { Enqueued, EnqueueOptions } from './enqueue.js'
import type { HandlerOutcome } from './outcome.js'

/** What a value looks like after a trip through JSON. */
export type Json<T> = T extends string | number | boolean | null
  ? T
  : T extends { toJSON(): infer J }
    ? Json<J>
    : T extends (...args: never[]) => unknown
      ? never
      : T extends readonly (infer E)[]
        ? Json<E>[]
        : T extends object
          ? { [K in keyof T as T[K] extends (...args: never[]) => unknown ? never : K]: Json<T[K]> }
          : T extends undefined | void
            ? null
            : unknown extends T
              ? unknown
              : T

/** The result that `result()` gives for what `run` returns: outcomes such as snooze are not results. */
export type ResultOf<R> = Json<Exclude<Awaited<R>, HandlerOutcome>>

/** A job with a schema for its input, and perhaps for its output. */
export interface SchemaJob<S extends StandardSchemaV1, O extends StandardSchemaV1, R> extends JobSettings {
  /** Any Standard Schema. Checked at enqueue; stored raw; parsed again at run, which gets its output. */
  readonly input: S
  /** Checked against what `run` returns; gives the result its type. */
  readonly output?: O
  run(input: StandardSchemaV1.InferOutput<S>, job: JobContext): R
}

/** A job without a schema: the input is what JSON carries. */
export interface PlainJob<In, O extends StandardSchemaV1, R> extends JobSettings {
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
  /** False: a job with this id (or unique key) was there already, and `id` is that one's. */
  readonly created: boolean
  readonly reason?: string
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
   * @throws NotAttached before attach; ForgeError FORGE_INPUT_…, FORGE_TX_…, FORGE_OPTION_…
   */
  enqueue(...args: InputArgs<In>): Promise<JobHandle<Out>>
  /** Makes many jobs, all or none. */
  enqueueMany(inputs: readonly In[], options?: Omit<EnqueueOptions, 'id'>): Promise<JobHandle<Out>[]>
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
  const attached = async (): Promise<JobEngine> => {
    const found = await engine()
    if (!found) throw new NotAttached()
    return found
  }
  const define = (name: string, definition: unknown): JobDefinition<unknown, unknown> => {
    registry.add(readDefinition(name, definition))
    return Object.freeze({
      name,
      enqueue: async (input?: unknown, options?: EnqueueOptions) =>
        (await attached()).enqueue(name, input, options),
      enqueueMany: async (inputs: readonly unknown[], options?: Omit<EnqueueOptions, 'id'>) =>
        (await attached()).enqueueMany(name, inputs, options),
    })
  }
  return define as DefineJob
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
    ...(made.created ? {} : { reason: 'exists' }),
    result: (options) => parts.result(made.id, options, committed),
    cancel: (reason) => parts.cancel(made.id, reason),
  }
}
