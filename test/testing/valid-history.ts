import { type HistoryEvent } from '../../src/testing/index.js'
import { type Random } from './random.js'

export const attemptsMax = 3

/** What a sound cluster could have recorded while its nodes crashed, paused, lost contact and came back. */
export function validHistory(random: Random, jobs: number): HistoryEvent[] {
  const lives = Array.from({ length: jobs }, (_, index) => lifeOf(`job-${index}`, random))
  return random.shuffle(lives.flat())
}

function lifeOf(job: string, random: Random): HistoryEvent[] {
  const acked = random.chance(0.9)
  const events: HistoryEvent[] = [{ kind: 'enqueued', job, acked }]
  if (!acked && random.chance(0.5)) return events
  if (random.chance(0.05)) return [...events, { kind: 'terminal', job, state: 'cancelled' }]

  let at = random.int(0, 1_000_000)
  let attempt = 1
  for (let claim = 1; ; claim += 1) {
    // The next claim may fall on the very microsecond at which the token before was given up.
    at += random.pick([0, 0, 1, random.int(2, 50_000)])
    const token = `${job}-token-${claim}`
    const held = holdOf({ job, token, at, attempt, last: claim >= 6 }, random)
    events.push(...held.events)
    if (held.state) return [...events, { kind: 'terminal', job, state: held.state }]
    at = held.until
    if (held.attemptUsed) attempt += 1
  }
}

interface Hold {
  readonly job: string
  readonly token: string
  readonly at: number
  readonly attempt: number
  /** The job has to end with this claim. */
  readonly last: boolean
}

interface Held {
  readonly events: HistoryEvent[]
  readonly until: number
  readonly attemptUsed?: boolean
  readonly state?: string
}

function holdOf({ job, token, at, attempt, last }: Hold, random: Random): Held {
  const node = `node-${random.int(1, 4)}`
  const until = at + random.int(1, 100_000)
  const events: HistoryEvent[] = [{ kind: 'claimed', job, token, node, attempt, at }]
  if (random.chance(0.9)) events.push({ kind: 'started', job, token, node, at: random.int(at, until) })
  const finalized = (state: string, accepted: boolean, when: number): HistoryEvent => {
    return { kind: 'finalized', job, token, node, state, accepted, at: when }
  }

  const fate = last
    ? 'completed'
    : random.pick(['completed', 'completed', 'failed', 'snoozed', 'rescued', 'rescued'])
  if (fate === 'completed') {
    events.push(finalized('completed', true, until), { kind: 'effect', job, token })
    return { events, until, state: 'completed' }
  }
  if (fate === 'snoozed') return { events: [...events, finalized('scheduled', true, until)], until }
  if (fate === 'failed') {
    const state = attempt < attemptsMax ? 'retryable' : 'discarded'
    events.push(finalized(state, true, until))
    return { events, until, attemptUsed: true, ...(state === 'discarded' && { state }) }
  }
  events.push({ kind: 'released', job, token, at: until })
  // The holder was only paused: it comes back, and is refused.
  if (random.chance(0.5)) events.push(finalized('completed', false, until + random.int(0, 200_000)))
  return { events, until, ...(random.chance(0.1) && { state: 'quarantined' }) }
}
