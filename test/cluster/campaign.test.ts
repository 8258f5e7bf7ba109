import { describe, expect, it } from 'vitest'
import { Campaign } from '../../src/cluster/campaign.js'
import { silentLogger } from '../../src/kernel/index.js'
import { manualClock } from '../kernel/manual-clock.js'

const lead = { role: 'one', term: 'a', n: 1, locked: true, renewed: true, fault: null }

function campaign() {
  const { clock, advance } = manualClock()
  const begun: string[] = []
  const work = async ({ term, signal }: { term: { id: string }; signal: AbortSignal }): Promise<void> => {
    begun.push(term.id)
    await new Promise((ended) => signal.addEventListener('abort', ended))
  }
  const parts = { clock, log: silentLogger, changed: () => {}, resign: () => Promise.resolve() }
  const one = new Campaign('one', work, parts)
  const heard = (sentAtMs: number, said: typeof lead | null = lead): void =>
    one.heard(said ?? undefined, { sentAtMs, trustedUntilMs: sentAtMs + 5_000 })
  return { one, advance, heard, begun }
}

describe('a main loop that stood still', () => {
  it('does not begin again by renewals from before it stood down', async () => {
    const { one, advance, heard, begun } = campaign()
    advance(1_000)
    heard(1_000)
    expect(begun).toEqual(['a'])
    // The thread renews at 3 and 5 s, and gives the role up at 6 s, since the loop does not move. Then the loop does.
    advance(6_500)
    expect(one.term).toBeNull()
    await one.settled()
    heard(3_000)
    heard(5_000)
    expect([one.term, begun]).toEqual([null, ['a']])
    heard(7_600, { ...lead, term: 'b', n: 2 })
    expect([one.term, begun]).toEqual([{ id: 'b', n: 2 }, ['a', 'b']])
  })

  it('stands down by the first answer in which nobody asked for the role', () => {
    const { one, advance, heard } = campaign()
    advance(1_000)
    heard(1_000)
    heard(1_000, null)
    expect(one.term).toBeNull()
  })
})
