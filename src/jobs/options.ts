import { asRecord, durationMs, invalidOption, option, unknownOption } from '../kernel/index.js'
import { concurrencyLimitMax, readWhole } from './limits.js'
import { checkName } from './names.js'

/** What one queue may do. `false`: its jobs are not run here. */
export type QueueOption =
  | {
      /** Jobs at once in this process; undefined: option `concurrency`. */
      readonly concurrency?: number
      readonly weight: number
      /** Jobs at once in the whole cluster; null takes a limit away; undefined says nothing about it. */
      readonly limit?: number | null
    }
  | false

/** Jobs of one queue at once in one process. */
export const concurrencyMax = 1_000
const weightMax = 100

/** Options of this room. */
export const jobsOptions = {
  concurrency: option.integer({
    doc: 'How many jobs of one queue run at once in this process, where `queues` says nothing else.',
    default: 10,
    min: 1,
    max: concurrencyMax,
  }),
  queues: option.custom<ReadonlyMap<string, QueueOption>>({
    doc: "Per queue: { concurrency, weight } in this process and { limit } in the whole cluster, or false to leave it to others. { '*': false } leaves out every queue not named.",
    default: new Map(),
    shows: 'all queues of registered jobs',
    fromText: parseJson,
    read: readQueues,
  }),
  retention: {
    completed: option.duration({
      doc: 'How long completed and cancelled jobs are kept, rounded up to whole days. A definition can say otherwise; 0 keeps nothing.',
      default: 7 * 86_400_000,
      shows: "'7d'",
    }),
    discarded: option.duration({
      doc: 'How long discarded and quarantined jobs (the dead letters) are kept, rounded up to whole days.',
      default: 30 * 86_400_000,
      shows: "'30d'",
    }),
  },
}

/** Input limits. Sizes in bytes of JSON. */
export const inputLimits = { bytesMax: 1_000_000, depthMax: 100 }
/** Result limits: over them a marker is kept instead. */
export const resultLimits = { bytesMax: 256_000, depthMax: 100 }

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function readQueues(value: unknown, name: string): ReadonlyMap<string, QueueOption> {
  const out = new Map<string, QueueOption>()
  for (const [queue, entry] of Object.entries(asRecord(value, name))) {
    if (queue !== '*') checkName(queue, 'queue')
    out.set(queue, entry === false ? false : readQueue(entry, `${name}.${queue}`))
  }
  return out
}

function readQueue(value: unknown, name: string): QueueOption {
  const record = asRecord(value, name)
  const known = ['concurrency', 'weight', 'limit']
  for (const key of Object.keys(record))
    if (!known.includes(key)) throw unknownOption(`${name}.${key}`, known)
  const { concurrency, weight, limit } = record
  if (limit !== undefined && name.endsWith('.*'))
    throw invalidOption(`${name}.limit`, 'must name its queue: a limit holds in the whole cluster')
  return {
    ...(concurrency === undefined
      ? {}
      : { concurrency: readWhole(concurrency, `${name}.concurrency`, concurrencyMax) }),
    weight: weight === undefined ? 1 : readWhole(weight, `${name}.weight`, weightMax),
    ...(limit === undefined
      ? {}
      : { limit: limit === null ? null : readWhole(limit, `${name}.limit`, concurrencyLimitMax) }),
  }
}

/** 'keep' of a definition, over the retention of the process. */
export function readKeep(value: unknown, name: string): { completedMs?: number; discardedMs?: number } {
  const record = asRecord(value, name)
  const known = ['completed', 'discarded']
  for (const key of Object.keys(record))
    if (!known.includes(key)) throw unknownOption(`${name}.${key}`, known)
  const read = (key: string): number | undefined =>
    record[key] === undefined ? undefined : durationMs(record[key], `${name}.${key}`)
  const [completedMs, discardedMs] = [read('completed'), read('discarded')]
  return {
    ...(completedMs === undefined ? {} : { completedMs }),
    ...(discardedMs === undefined ? {} : { discardedMs }),
  }
}
