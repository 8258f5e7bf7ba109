import type { Runtime } from '../runtime/index.js'
import { firstFinal, type JobError, type JobState, stateName, suspectCrashes } from './job.js'
import {
  aheadOfJob,
  gateOfJob,
  type GateRow,
  type ServiceRow,
  serviceOfLane,
  standingOfJob,
  type StandingRow,
} from './queries/explain.js'

/** Why a job does not run now, or where it stands. */
export interface Explanation {
  /** Null: there is no such job. */
  readonly state: JobState | null
  /**
   * What decides. unknown: no such job · finished · running · cancelling: it runs and is asked to stop · scheduled ·
   * retrying: it waits for its next attempt · gate: it waits for a limit · paused: its queue is · unserved: no live node
   * runs jobs of its kind · suspect: it lost its process before and is run alone · outranked: more urgent jobs come
   * first · next: nothing holds it back.
   */
  readonly because:
    | 'unknown'
    | 'finished'
    | 'running'
    | 'cancelling'
    | 'scheduled'
    | 'retrying'
    | 'gate'
    | 'paused'
    | 'unserved'
    | 'suspect'
    | 'outranked'
    | 'next'
  /** One sentence in plain English. */
  readonly sentence: string
  /** When it finished, started, or is due. */
  readonly at?: Date
  readonly queue?: string
  readonly node?: string
  /** `c/<name>` or `c/<name>=<key>` (running at once), `r/…` (per time), `q/<queue>` (running at once in the queue). */
  readonly gate?: string
  /** Jobs before it; 1,001 stands for "more than 1,000". */
  readonly ahead?: number
}

/** What is read for an explanation. The later parts are asked for only when the earlier ones do not decide. */
interface Standing {
  readonly job: StandingRow
  readonly service?: ServiceRow
  readonly gate?: GateRow
  readonly ahead?: number
  readonly running?: number
}

const aheadMax = 1_000
const available = 2
const blocked = 1

/** Asks in the order in which a claim decides, and stops at the first answer. */
export async function explainJob({ db }: Runtime, id: string): Promise<Explanation> {
  const [job] = await db.reader.run(standingOfJob, [id])
  if (!job) {
    const sentence = `There is no job ${id}: it never was, its transaction has not committed, or its retention has passed.`
    return { state: null, because: 'unknown', sentence }
  }
  if (job.state === blocked) {
    const [gate] = await db.reader.run(gateOfJob, [id, aheadMax])
    return explain({ job, ...(gate ? { gate } : {}) })
  }
  if (job.state !== available || job.paused_at) return explain({ job })
  const [service] = await db.reader.run(serviceOfLane, [job.lane])
  const [place] = await db.reader.run(aheadOfJob, [id, aheadMax])
  return explain({ job, ...(service ? { service } : {}), ...place })
}

/** Pure: what the facts mean. */
export function explain(standing: Standing): Explanation {
  const { job } = standing
  const state = stateName(job.state)
  const about = { state, queue: job.queue }
  if (job.state >= firstFinal) return { ...about, ...explainEnd(job, state) }
  switch (state) {
    case 'running':
      return { ...about, ...explainRun(job) }
    case 'scheduled':
    case 'retryable':
      return { ...about, ...explainTime(job, state) }
    case 'blocked':
      return { ...about, ...explainGate(standing) }
    default:
      return { ...about, ...(explainQueue(standing) ?? explainPlace(standing)) }
  }
}

type Part = Omit<Explanation, 'state'>

function explainEnd(job: StandingRow, state: JobState): Part {
  const after =
    state === 'completed' || state === 'discarded' ? ` in attempt ${job.attempt} of ${job.attempts_max}` : ''
  const why = job.reason ?? lastError(job)
  const sentence = `It is ${state} since ${time(job.finished_at)}${job.attempt > 0 ? after : ''}${why ? `: ${plain(why)}` : ''}.`
  return { because: 'finished', sentence, ...(job.finished_at ? { at: job.finished_at } : {}) }
}

function explainRun(job: StandingRow): Part {
  const where =
    job.host === null ? `node ${job.node}` : `node ${job.node} (${plain(job.host)}, process ${job.pid})`
  const run = `It was claimed at ${time(job.claimed_at)}, ${span(job.running_ms ?? 0)} ago, by ${where} for attempt ${job.attempt} of ${job.attempts_max}`
  const rest = { ...(job.claimed_at ? { at: job.claimed_at } : {}), ...(job.node ? { node: job.node } : {}) }
  const lost = job.host === null || job.node_state === 'dead'
  const fate = lost ? '; that node is lost, and the job is about to be taken back' : ''
  // A node claims a little ahead, so what is claimed may still stand in its local queue.
  if (!job.cancel_at)
    return { because: 'running', sentence: `${run}${fate || ', and runs there or is about to'}.`, ...rest }
  const why = job.cancel_reason ? ` (${plain(job.cancel_reason)})` : ''
  const sentence = `${run}; its cancel was asked for at ${time(job.cancel_at)}${why}, and its handler has not ended yet${fate}.`
  return { because: 'cancelling', sentence, ...rest }
}

function explainTime(job: StandingRow, state: 'scheduled' | 'retryable'): Part {
  const when = job.due_ms > 0 ? `at ${time(job.run_at)}, in ${span(job.due_ms)}` : `now (${time(job.run_at)})`
  const paused = job.paused_at ? ', and its queue is paused' : ''
  if (state === 'scheduled')
    return { because: 'scheduled', sentence: `It is scheduled and due ${when}${paused}.`, at: job.run_at }
  const error = lastError(job)
  const failed = `Attempt ${job.attempt} of ${job.attempts_max} failed${error ? ` (${plain(error)})` : ''}`
  return { because: 'retrying', sentence: `${failed}; the next is due ${when}${paused}.`, at: job.run_at }
}

function explainGate({ job, gate: numbers }: Standing): Part {
  const gate = job.gate ?? ''
  const ahead = numbers?.ahead ?? 0
  const before = ahead === 0 ? 'it is the first in line' : `${many(ahead)} before it`
  const soon = numbers?.wait_ms ? `, and the next passes in ${span(numbers.wait_ms)}` : ''
  const sentence = `It waits for ${describeGate(gate)}${describeLimit(numbers)}; ${before} there${soon}.`
  return { because: 'gate', sentence, gate, ahead }
}

/** Names of jobs and queues never hold '='; keys may. */
function describeGate(gate: string): string {
  const [, kind, name = '', key] = /^([crq])\/([^=]*)(?:=(.*))?$/s.exec(gate) ?? []
  const whose = key === undefined ? '' : ` for the key '${plain(key)}'`
  if (kind === 'c') return `the concurrency limit of '${plain(name)}'${whose}`
  if (kind === 'r') return `the rate limit of '${plain(name)}'${whose}`
  return kind === 'q'
    ? `the limit of queue '${plain(name)}' in the whole cluster`
    : `the gate '${plain(gate)}'`
}

function describeLimit(numbers: GateRow | undefined): string {
  if (!numbers || numbers.limit_n === null) return ''
  const { limit_n: limit, per_ms: per } = numbers
  return ` (${limit.toLocaleString('en')} ${per === null ? 'at once' : `per ${span(per)}`})`
}

function explainQueue({ job, service }: Standing): Part | null {
  if (job.paused_at) {
    const who = job.paused_by ? ` by ${plain(job.paused_by)}` : ''
    const why = job.paused_reason ? `: ${plain(job.paused_reason)}` : ''
    const sentence = `Its queue '${job.queue}' is paused since ${time(job.paused_at)}${who}${why}.`
    return { because: 'paused', sentence, at: job.paused_at }
  }
  const lack = service ? describeLack(job, service) : null
  if (lack !== null) return { because: 'unserved', sentence: lack }
  if (!service || job.crashes < suspectCrashes || service.serving === 0 || service.busy < service.serving)
    return null
  const nodes = service.serving === 1 ? 'the one node' : `each of the ${service.serving} nodes`
  const sentence = `It lost its process ${job.crashes} times, so it is a suspect: a process runs one of those at a time, and ${nodes} that could run it is busy with another.`
  return { because: 'suspect', sentence }
}

/** Why no live node runs jobs of this lane; null when one does, or when none has said yet what it serves. */
function describeLack({ name, queue, version, capability }: StandingRow, service: ServiceRow): string | null {
  if (service.workers === 0) return 'No node with the role worker is alive, or all of them are stopping.'
  if (service.known === 0 || service.serving > 0) return null
  const nobody = (verb: string): string =>
    service.workers === 1
      ? `The one live worker does not ${verb}`
      : `None of the ${service.workers} live workers ${verb}s`
  if (capability !== '' && service.capable === 0)
    return `${nobody('declare')} the capability '${plain(capability)}', which '${name}' needs.`
  if (service.other_queues)
    return `${nobody('serve')} its queue '${queue}'; '${name}' is served in ${list(service.other_queues)} only.`
  if (service.other_versions)
    return `${nobody('serve')} version ${version} of '${name}', only ${service.other_versions.slice(0, 5).join(', ')}.`
  return `${nobody('serve')} '${name}' in queue '${queue}': it is not defined there, or option queues leaves that queue out.`
}

function explainPlace({ job, ahead = 0, running = 0 }: Standing): Part {
  const busy = `${running > aheadMax ? 'more than 1,000' : running} of its queue '${job.queue}' run now`
  if (ahead > 0)
    return {
      because: 'outranked',
      sentence: `${capital(many(ahead))} more urgent, or as urgent and older; ${busy}.`,
      ahead,
    }
  const sentence = `Nothing holds it back: it is the next of its queue and starts as soon as a node has a slot for it; ${busy}.`
  return { because: 'next', sentence, ahead }
}

function many(count: number): string {
  if (count > aheadMax) return 'more than 1,000 jobs are'
  return count === 1 ? '1 job is' : `${count} jobs are`
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => `'${plain(name)}'`)
  return names.length > 5 ? `${shown.join(', ')} and others` : shown.join(', ')
}

function lastError({ error }: StandingRow): string | null {
  const { name, message } = (error ?? {}) as Partial<JobError>
  return message === undefined ? null : `${name ?? 'Error'}: ${message}`
}

/** Text of users in a sentence: one line, cut, and free of controls. */
function plain(text: string): string {
  const line = text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, ' ')
    .trim()
    .replace(/\.$/, '')
  return line.length > 200 ? `${line.slice(0, 199)}…` : line
}

function time(at: Date | null): string {
  return at && Number.isFinite(at.getTime()) ? at.toISOString() : 'an unknown time'
}

/** '250 ms', '12 s', '5 min', '3 h', '9 days'. */
function span(ms: number): string {
  const units = [
    ['day', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
    ['s', 1_000],
  ] as const
  const [unit, size] = units.find(([, each]) => ms >= each * 0.995) ?? ['ms', 1]
  const n = Math.round(ms / size)
  return `${n} ${unit}${unit === 'day' && n !== 1 ? 's' : ''}`
}
