import { describe, expect, it } from 'vitest'
import {
  checkHistory,
  type Findings,
  type HistoryEvent,
  type HistoryReport,
} from '../../src/testing/index.js'
import { firstSeed, type Random, randomFrom } from './random.js'
import { attemptsMax, validHistory } from './valid-history.js'

type Kind = keyof Findings
type EventOf<Name extends HistoryEvent['kind']> = Extract<HistoryEvent, { kind: Name }>

const rounds = 50
const limits = { attemptsMax, effectsExpected: true }

function kindsOf(report: HistoryReport): string[] {
  return Object.entries(report).flatMap(([kind, found]) =>
    Array.isArray(found) && found.length > 0 ? [kind] : [],
  )
}

function jobsOf(findings: Findings[Kind]): Set<string> {
  return new Set(findings.map((finding) => (typeof finding === 'string' ? finding : finding.job)))
}

function ofKind<Name extends HistoryEvent['kind']>(
  events: readonly HistoryEvent[],
  kind: Name,
): EventOf<Name>[] {
  return events.filter((event): event is EventOf<Name> => event.kind === kind)
}

/** Runs `body` for a row of seeds; a failure names the seed that repeats it. */
function eachSeed(body: (random: Random, message: string) => void): void {
  const first = firstSeed()
  for (let seed = first; seed < first + rounds; seed += 1) body(randomFrom(seed), `FORGE_TEST_SEED=${seed}`)
}

/** One thing done wrong, the kind of finding it has to make, and the kinds that it may make besides. */
interface Mutation {
  readonly name: string
  readonly finds: Kind
  readonly mayFind?: readonly Kind[]
  readonly apply: (events: readonly HistoryEvent[], random: Random) => readonly HistoryEvent[]
}

const without = (events: readonly HistoryEvent[], gone: HistoryEvent) =>
  events.filter((event) => event !== gone)
const ackedTerminals = (events: readonly HistoryEvent[]) => {
  const acked = new Set(ofKind(events, 'enqueued').flatMap(({ job, acked }) => (acked ? [job] : [])))
  return ofKind(events, 'terminal').filter(({ job }) => acked.has(job))
}
const completions = (events: readonly HistoryEvent[]) =>
  ofKind(events, 'finalized').filter(({ state, accepted }) => accepted && state === 'completed')
const refusals = (events: readonly HistoryEvent[]) => {
  // Those at the microsecond of their release could have come before it.
  const releasedAt = new Map(ofKind(events, 'released').map(({ token, at }) => [token, at]))
  return ofKind(events, 'finalized').filter(
    ({ token, accepted, at }) => !accepted && at > (releasedAt.get(token) ?? at),
  )
}

const mutations: readonly Mutation[] = [
  {
    name: 'an acknowledged job is gone',
    finds: 'lost',
    apply: (events, random) => without(events, random.pick(ackedTerminals(events))),
  },
  {
    name: 'a job appears that nobody enqueued',
    finds: 'unexpected',
    apply: (events) => [...events, { kind: 'terminal', job: 'stranger', state: 'discarded' }],
  },
  {
    name: 'a second token is handed out while the first is current',
    finds: 'twoTokens',
    mayFind: ['staleFinalizations'],
    apply: (events, random) => {
      const { job, token, at: until } = random.pick(completions(events))
      const from = ofKind(events, 'claimed').find((claim) => claim.token === token)?.at ?? NaN
      const at = random.int(from, until - 1)
      return [...events, { kind: 'claimed', job, token: 'second', node: 'node-9', attempt: 1, at }]
    },
  },
  {
    name: 'a token is never taken back before the next claim',
    finds: 'twoTokens',
    apply: (events, random) => {
      const claims = ofKind(events, 'claimed')
      const followed = ofKind(events, 'released').filter(({ job, at }) => {
        return claims.some((claim) => claim.job === job && claim.at >= at)
      })
      return without(events, random.pick(followed))
    },
  },
  {
    name: 'a holder that was replaced is accepted',
    finds: 'staleFinalizations',
    mayFind: ['duplicateFinals', 'contradictions'],
    apply: (events, random) => {
      const refused = random.pick(refusals(events))
      return [...without(events, refused), { ...refused, accepted: true }]
    },
  },
  {
    name: 'a holder is accepted a second time',
    finds: 'staleFinalizations',
    mayFind: ['duplicateFinals'],
    apply: (events, random) => {
      const first = random.pick(ofKind(events, 'finalized').filter(({ accepted }) => accepted))
      return [...events, { ...first, at: first.at + 1 }]
    },
  },
  {
    name: 'a token that was never claimed is accepted',
    finds: 'staleFinalizations',
    apply: (events, random) => {
      const real = random.pick(completions(events))
      return [...without(events, real), { ...real, token: 'forged' }]
    },
  },
  {
    name: 'a claim goes beyond the last attempt',
    finds: 'attemptsOver',
    apply: (events, random) => {
      const claim = random.pick(ofKind(events, 'claimed'))
      return [...without(events, claim), { ...claim, attempt: attemptsMax + 1 }]
    },
  },
  {
    name: 'a job stands twice in the final table',
    finds: 'duplicateFinals',
    apply: (events, random) => [...events, { ...random.pick(ofKind(events, 'terminal')) }],
  },
  {
    name: 'a finished job is brought back and finishes again',
    finds: 'duplicateFinals',
    apply: (events, random) => {
      const done = random.pick(completions(events))
      const again = { job: done.job, token: 'again', node: 'node-9' }
      return [
        ...events,
        { kind: 'claimed', ...again, attempt: 1, at: done.at + 10 },
        { kind: 'finalized', ...again, state: 'completed', accepted: true, at: done.at + 20 },
      ]
    },
  },
  {
    name: 'a completed job is found discarded',
    finds: 'contradictions',
    mayFind: ['effectsMissing'],
    apply: (events, random) => {
      const { job } = random.pick(completions(events))
      return events.map((event) => {
        return event.kind === 'terminal' && event.job === job ? { ...event, state: 'discarded' } : event
      })
    },
  },
  {
    name: 'a transactional effect happens twice',
    finds: 'effectsTwice',
    apply: (events, random) => [...events, { ...random.pick(ofKind(events, 'effect')), token: 'other' }],
  },
  {
    name: 'a completed job lacks its effect',
    finds: 'effectsMissing',
    apply: (events, random) => without(events, random.pick(ofKind(events, 'effect'))),
  },
]

describe('the history checker', () => {
  it('finds nothing in an empty history', () => {
    expect(checkHistory([], limits)).toMatchObject({
      ok: true,
      lost: [],
      summary: expect.stringContaining('0 jobs'),
    })
  })

  it('finds nothing in whatever a sound cluster records', () => {
    eachSeed((random, message) => {
      const report = checkHistory(validHistory(random, 200), limits)
      expect(report.ok, `${message}\n${report.summary}`).toBe(true)
    })
  })

  it.each(mutations)('finds it when $name', ({ apply, finds, mayFind = [] }) => {
    eachSeed((random, message) => {
      const report = checkHistory(random.shuffle(apply(validHistory(random, 100), random)), limits)
      const seen = `${message}\n${report.summary}`
      expect(report.ok, seen).toBe(false)
      expect(jobsOf(report[finds]).size, seen).toBe(1)
      expect([finds, ...mayFind], seen).toEqual(expect.arrayContaining(kindsOf(report)))
    })
  })

  it('has a mutation for every kind of finding', () => {
    const kinds = Object.keys(checkHistory([], limits)).filter((key) => key !== 'ok' && key !== 'summary')
    expect([...new Set<string>(mutations.map(({ finds }) => finds))].sort()).toEqual(kinds.sort())
  })

  it('leaves effects alone unless the test expects them', () => {
    const events: HistoryEvent[] = [
      { kind: 'enqueued', job: 'a', acked: true },
      { kind: 'terminal', job: 'a', state: 'completed' },
    ]
    expect(checkHistory(events, { attemptsMax }).ok).toBe(true)
    expect(checkHistory(events, limits).effectsMissing).toEqual(['a'])
  })

  it('does not call a job lost whose enqueue was not acknowledged', () => {
    expect(checkHistory([{ kind: 'enqueued', job: 'a', acked: false }], limits).ok).toBe(true)
  })

  it('names jobs, tokens and nodes in its summary, the first five of each kind', () => {
    const events = [1, 2, 3, 4, 5, 6].flatMap((job): HistoryEvent[] => [
      { kind: 'enqueued', job: `lost-${job}`, acked: true },
    ])
    const claim = { kind: 'claimed', job: 'torn', attempt: 1 } as const
    const { summary } = checkHistory(
      [...events, { ...claim, token: 't1', node: 'n1', at: 5 }, { ...claim, token: 't2', node: 'n2', at: 7 }],
      limits,
    )
    expect(summary).toContain('lost: 6')
    expect(summary).toContain('lost-5')
    expect(summary).not.toContain('lost-6')
    expect(summary).toContain('{"job":"torn","tokens":["t1","t2"],"nodes":["n1","n2"],"at":7}')
  })
})

describe('the judgement over tokens', () => {
  type Claim = EventOf<'claimed'>
  type End = EventOf<'released'> | EventOf<'finalized'>

  /** Anything at all on one job, sound or not, in so little time that the events collide. */
  function anything(random: Random): { claims: Claim[]; ends: End[] } {
    const times = random.shuffle(Array.from({ length: 30 }, (_, at) => at))
    const job = 'job'
    const node = 'node'
    const token = () => random.pick(['a', 'b', 'c', 'd'])
    const claims = times.slice(0, random.int(1, 5)).map((at): Claim => {
      return { kind: 'claimed', job, node, token: token(), attempt: 1, at }
    })
    const ends = Array.from({ length: random.int(0, 6) }, (): End => {
      const at = random.int(0, 30)
      if (random.chance(0.5)) return { kind: 'released', job, token: token(), at }
      return { kind: 'finalized', job, node, token: token(), state: 'retryable', accepted: true, at }
    })
    return { claims, ends }
  }

  /** The definitions once more, slow and plain: was this claim's token current at that time? */
  function isCurrent(claim: Claim, at: number, ends: readonly End[]): boolean {
    const ended = ends.some((end) => end.token === claim.token && end.at >= claim.at && end.at <= at)
    return claim.at <= at && !ended
  }

  it('finds two tokens at exactly those claims that were made while another was current', () => {
    eachSeed((random, message) => {
      const { claims, ends } = anything(random)
      const doubled = claims.filter((claim) => {
        return claims.some((other) => other !== claim && isCurrent(other, claim.at, ends))
      })
      const { twoTokens } = checkHistory([...claims, ...ends], limits)
      expect(new Set(twoTokens.map(({ at }) => at)), message).toEqual(new Set(doubled.map(({ at }) => at)))
    })
  })

  it('accepts a finalization exactly when its own claim is the newest and was not ended before', () => {
    eachSeed((random, message) => {
      const { claims, ends } = anything(random)
      const finalized = ends.filter((end) => end.kind === 'finalized')
      const stale = finalized.filter(({ token, at }) => {
        const own = claims.filter((claim) => claim.token === token && claim.at <= at)
        const last = own.find((claim) => own.every((other) => other.at <= claim.at))
        if (!last) return true
        const overtaken = claims.some((claim) => claim.at > last.at && claim.at < at)
        return overtaken || ends.some((end) => end.token === token && end.at >= last.at && end.at < at)
      })
      const report = checkHistory([...claims, ...ends], limits)
      expect(new Set(report.staleFinalizations), message).toEqual(new Set(stale))
    })
  })
})
