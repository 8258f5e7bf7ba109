import { type EventOf, type HistoryEvent, isFinal } from './history-events.js'
import { type Overlap, overlapsOf, staleOf, tenuresOf } from './history-tenures.js'

export interface HistoryLimits {
  /** The highest attempt that a claim may carry. */
  readonly attemptsMax: number
  /** Each completed job has to have its effect; set it when all handlers of the test write one. Default false. */
  readonly effectsExpected?: boolean
}

/** What must not have happened. Each list is empty when the history is right. */
export interface Findings {
  /** Jobs whose enqueue was acknowledged and that have no terminal state. */
  readonly lost: readonly string[]
  /** Jobs that have a terminal state and were never enqueued. */
  readonly unexpected: readonly string[]
  /** Two tokens of one job, both current at one time of the database. */
  readonly twoTokens: readonly Overlap[]
  /** Finalizations that were accepted although their token was not the current one. */
  readonly staleFinalizations: readonly EventOf<'finalized'>[]
  /** Claims beyond the last attempt. */
  readonly attemptsOver: readonly EventOf<'claimed'>[]
  /** Jobs that ended more than once: in the final table, or by accepted final outcomes. */
  readonly duplicateFinals: readonly { readonly job: string; readonly states: readonly string[] }[]
  /** Jobs whose accepted final outcome is not the terminal state that was found. */
  readonly contradictions: readonly {
    readonly job: string
    readonly accepted: string
    readonly found: string
  }[]
  /** Jobs with more than one transactional effect. */
  readonly effectsTwice: readonly { readonly job: string; readonly tokens: readonly string[] }[]
  /** Completed jobs without their effect; only with `effectsExpected`. */
  readonly effectsMissing: readonly string[]
}

export interface HistoryReport extends Findings {
  /** True when there is no finding. */
  readonly ok: boolean
  /** For people: what was looked at, and of each kind of finding the number and the first five. */
  readonly summary: string
}

/** The events of one job, apart by kind. */
interface JobHistory {
  readonly job: string
  readonly enqueued: EventOf<'enqueued'>[]
  readonly claimed: EventOf<'claimed'>[]
  readonly started: EventOf<'started'>[]
  readonly finalized: EventOf<'finalized'>[]
  readonly released: EventOf<'released'>[]
  readonly terminal: EventOf<'terminal'>[]
  readonly effect: EventOf<'effect'>[]
}

/**
 * Judges a history that was recorded while things failed and read after all work was drained. The order of the events
 * does not matter. A finding is a proof: what cannot be told from these records is not accused. Jobs that an operator
 * retried after they were final do not belong in it. Takes O(n log n).
 * Modelled on Jepsen's total-queue checker (lost, unexpected), with fencing tokens added.
 */
export function checkHistory(events: Iterable<HistoryEvent>, limits: HistoryLimits): HistoryReport {
  const jobs = byJob(events)
  const findings: Findings = {
    lost: jobs.filter(isLost).map(({ job }) => job),
    unexpected: jobs.filter(isUnexpected).map(({ job }) => job),
    ...judgeTokens(jobs),
    attemptsOver: jobs.flatMap(({ claimed }) =>
      claimed.filter(({ attempt }) => attempt > limits.attemptsMax),
    ),
    duplicateFinals: jobs.flatMap(duplicateFinalsOf),
    contradictions: jobs.flatMap(contradictionsOf),
    effectsTwice: jobs.flatMap(({ job, effect }) => {
      return effect.length > 1 ? [{ job, tokens: effect.map(({ token }) => token) }] : []
    }),
    effectsMissing: limits.effectsExpected ? jobs.filter(lacksEffect).map(({ job }) => job) : [],
  }
  const ok = Object.values(findings).every((list: readonly unknown[]) => list.length === 0)
  return { ...findings, ok, summary: summarise(jobs, findings) }
}

function byJob(events: Iterable<HistoryEvent>): JobHistory[] {
  const jobs = new Map<string, JobHistory>()
  for (const event of events) {
    const history = jobs.get(event.job) ?? emptyHistory(event.job)
    jobs.set(event.job, history)
    const sameKind: HistoryEvent[] = history[event.kind]
    sameKind.push(event)
  }
  return [...jobs.values()]
}

function emptyHistory(job: string): JobHistory {
  return {
    job,
    enqueued: [],
    claimed: [],
    started: [],
    finalized: [],
    released: [],
    terminal: [],
    effect: [],
  }
}

function isLost({ enqueued, terminal }: JobHistory): boolean {
  return terminal.length === 0 && enqueued.some(({ acked }) => acked)
}

function isUnexpected({ enqueued, terminal }: JobHistory): boolean {
  return terminal.length > 0 && enqueued.length === 0
}

function lacksEffect({ terminal, effect }: JobHistory): boolean {
  return effect.length === 0 && terminal.some(({ state }) => state === 'completed')
}

function judgeTokens(jobs: readonly JobHistory[]): Pick<Findings, 'twoTokens' | 'staleFinalizations'> {
  const verdicts = jobs.map(({ job, claimed, finalized, released }) => {
    const accepted = finalized.filter((event) => event.accepted)
    const tenures = tenuresOf(claimed, [...released, ...accepted])
    return { overlaps: overlapsOf(job, tenures), stale: staleOf(accepted, tenures) }
  })
  return {
    twoTokens: verdicts.flatMap(({ overlaps }) => overlaps),
    staleFinalizations: verdicts.flatMap(({ stale }) => stale),
  }
}

function finalOutcomesOf({ finalized }: JobHistory): EventOf<'finalized'>[] {
  return finalized.filter(({ accepted, state }) => accepted && isFinal(state))
}

function duplicateFinalsOf(history: JobHistory): Findings['duplicateFinals'] {
  const lists = [history.terminal, finalOutcomesOf(history)]
  const states = lists.filter(({ length }) => length > 1).flatMap((list) => list.map(({ state }) => state))
  return states.length > 0 ? [{ job: history.job, states }] : []
}

/** A job may end without a holder's word, by cancel or quarantine; but an accepted word has to stand. */
function contradictionsOf(history: JobHistory): Findings['contradictions'] {
  const [outcome, ...furtherOutcomes] = finalOutcomesOf(history)
  const [found, ...furtherFound] = history.terminal
  const comparable = outcome && found && furtherOutcomes.length + furtherFound.length === 0
  if (!comparable || outcome.state === found.state) return []
  return [{ job: history.job, accepted: outcome.state, found: found.state }]
}

const examplesMax = 5

function summarise(jobs: readonly JobHistory[], findings: Findings): string {
  const total = (count: (history: JobHistory) => number): number =>
    jobs.reduce((sum, each) => sum + count(each), 0)
  const claims = total(({ claimed }) => claimed.length)
  const ended = total(({ terminal }) => Math.min(terminal.length, 1))
  const refused = total(({ finalized }) => finalized.filter(({ accepted }) => !accepted).length)
  const started = total((history) => history.started.length)
  const released = total((history) => history.released.length)
  const seen =
    `${jobs.length} jobs, ${ended} ended; ${claims} claims, ${started} starts, ` +
    `${released} tokens taken back, ${refused} finalizations refused`
  const lines = Object.entries(findings).flatMap(([kind, list]: [string, readonly unknown[]]) => {
    if (list.length === 0) return []
    const examples = list.slice(0, examplesMax).map((finding) => `  ${JSON.stringify(finding)}`)
    return [`${kind}: ${list.length}`, ...examples]
  })
  return [seen, ...(lines.length === 0 ? ['no findings'] : lines)].join('\n')
}
