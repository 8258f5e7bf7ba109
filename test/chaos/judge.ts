import { checkHistory, type HistoryEvent } from '../../src/testing/index.js'
import type { Told, ToldBatch } from './clients.js'
import { readRecording } from './recorder.js'

type Query = <Row extends object>(sql: string, values?: readonly unknown[]) => Promise<Row[]>

export interface Verdict {
  /** What must not have happened, in words. */
  readonly findings: readonly string[]
  readonly summary: string
  readonly events: readonly HistoryEvent[]
}

interface Ended {
  readonly id: string
  readonly state: number
  readonly crashes: number
  readonly attempt: number
  readonly batch: string | null
  readonly how: string | null
  readonly effects: number
}

const attemptsMax = 20
const crashesMax = 3

/** Judges what is in the database after a storm against what the clients were told. Expects that all work is drained. */
export async function judgeStorm(
  query: Query,
  { told, batches }: { readonly told: readonly Told[]; readonly batches: readonly ToldBatch[] },
): Promise<Verdict> {
  const ended = await query<Ended>(
    `select id, state, crashes, attempt, input ->> 'batch' as batch, input ->> 'how' as how,
            (select count(*)::int from chaos.effect where job = id) as effects
     from forge.job_history`,
  )
  const left = await query<{ id: string; state: number }>('select id, state from forge.job')
  const unanswered = new Set(batches.filter(({ acked }) => !acked).map(({ batch }) => batch))
  const enqueued = [
    ...told
      .filter(({ fate }) => fate !== 'rolledBack')
      .map(({ id, fate }) => ({ id, acked: fate === 'acked' })),
    ...ended.filter(({ batch }) => unanswered.has(batch ?? '')).map(({ id }) => ({ id, acked: false })),
  ]
  const recording = await readRecording(query, enqueued)
  const report = checkHistory(recording.events, { attemptsMax })
  const findings = [
    ...(report.ok ? [] : [report.summary]),
    ...left.map(({ id, state }) => `left over after the drain: ${id} in state ${state}`),
    ...rolledBackOf(told, [...ended, ...left]),
    ...batches.flatMap((batch) => halfBatch(batch, ended)),
    ...ended.flatMap(oddEnd),
    ...(await overlapsOf(query)),
    ...(recording.deadClaims > 0 ? [`${recording.deadClaims} claims without a lease`] : []),
    ...(recording.staleResults > 0 ? [`${recording.staleResults} results of another claim`] : []),
  ]
  const fates = (['acked', 'unknown', 'rolledBack'] as const).map(
    (fate) => `${told.filter((one) => one.fate === fate).length} ${fate}`,
  )
  const quarantined = ended.filter(({ state }) => state === 8).length
  const attempts = Math.max(0, ...ended.map(({ attempt }) => attempt))
  const summary =
    `told: ${fates.join(', ')}, ${unanswered.size} bulk enqueues unanswered; ${recording.crashes} crashes, ` +
    `${quarantined} quarantined, attempts up to ${attempts}; ${report.summary}`
  return { findings, summary, events: recording.events }
}

function rolledBackOf(told: readonly Told[], seen: readonly { readonly id: string }[]): string[] {
  const there = new Set(seen.map(({ id }) => id))
  return told
    .filter(({ id, fate }) => fate === 'rolledBack' && there.has(id))
    .map(({ id }) => `was rolled back and is there: ${id}`)
}

/** Of jobs of one key, which run one at a time, each claim that began before the one of another had ended. */
async function overlapsOf(query: Query): Promise<string[]> {
  const log = await query<{ kind: string; job: string; key: string }>(
    `select l.kind, l.job, h.input ->> 'key' as key from chaos.log as l join forge.job_history as h on h.id = l.job
     where h.input ->> 'key' is not null order by l.n`,
  )
  const holders = new Map<string, string>()
  const findings: string[] = []
  for (const { kind, job, key } of log) {
    const holder = holders.get(key)
    if (kind !== 'claimed') {
      if (holder === job) holders.delete(key)
    } else if (holder !== undefined && holder !== job)
      findings.push(`${job} began while ${holder} had '${key}'`)
    else holders.set(key, job)
  }
  return findings
}

/** All or none; all when it was acknowledged. */
function halfBatch({ batch, n, acked }: ToldBatch, ended: readonly Ended[]): string[] {
  const count = ended.filter((job) => job.batch === batch).length
  return count === n || (count === 0 && !acked) ? [] : [`${count} of ${n} of the bulk enqueue ${batch}`]
}

/** Every job here completes sooner or later, unless it lost three processes; effects come with the completion. */
function oddEnd({ id, state, crashes, how, effects }: Ended): string[] {
  const right = state === 5 || (state === 8 && crashes >= crashesMax)
  const expected = state === 5 && how === 'transaction' ? 1 : 0
  return [
    ...(right ? [] : [`${id} ended in state ${state} after ${crashes} crashes`]),
    ...(effects === expected ? [] : [`${id} has ${effects} effects, not ${expected}`]),
  ]
}
