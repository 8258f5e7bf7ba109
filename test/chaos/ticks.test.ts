import { setTimeout as pause } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { Fleet } from './fleet.js'
import { long } from './nodes.js'

const database = useDatabase()
const lease = long ? { ms: 10_000, renewMs: 3_000 } : { ms: 1_500, renewMs: 300 }
const size = 3
/** Within so much of a tick, before or after it. */
const aroundMs = 50

interface Leader {
  readonly n: number
  readonly node: string
}

async function leader(): Promise<Leader | undefined> {
  const [row] = await database.query<Leader>(
    `select n::float8 as n, node from forge.leader where role = 'scheduler' and expires_at > clock_timestamp()`,
  )
  return row
}

const lockEnds = 'connection of the lock ended'

const faults = {
  SIGKILL: (fleet: Fleet, at: number) => fleet.replace(at, 0),
  [lockEnds]: async () => {
    await database.query(
      `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objsubid = 1
       and ((classid::bigint << 32) | objid::bigint) = forge.leader_key('scheduler')`,
    )
  },
  'clean stop': async (fleet: Fleet, at: number) => {
    await fleet.members[at]?.node.send({ kind: 'stop' })
    await fleet.members[at]?.node.exited
    await fleet.replace(at, 0)
  },
  SIGSTOP: async (fleet: Fleet, at: number) => {
    fleet.members[at]?.node.pause()
    const before = (await leader())?.n ?? 0
    await until(async () => ((await leader())?.n ?? 0) > before, { label: 'taken over', deadlineMs: 60_000 })
    fleet.members[at]?.node.resume()
  },
} as const

const roundsEach = long ? 50 : 2

it(
  `no tick is lost or doubled when leaders change at a tick (${roundsEach} rounds of each fault)`,
  { timeout: long ? 3_600_000 : 240_000 },
  async () => {
    const options = { roles: ['worker', 'scheduler'], lease } as const
    await using fleet = await Fleet.start({ url: database.url, size, options, quiet: true, ticks: true })
    const firstTerm = (await until(leader, { label: 'somebody leads' })).n
    for (let round = 0; round < roundsEach; round++)
      for (const [name, fault] of Object.entries(faults)) {
        const before = await until(leader, { label: 'somebody leads', deadlineMs: 60_000 })
        const at = await fleet.indexOf(before.node)
        const [{ ms }] = (await database.query<{ ms: number }>(
          `select (1000 - extract(milliseconds from clock_timestamp())::float8::int % 1000) as ms`,
        )) as [{ ms: number }]
        await pause(Math.max(0, ms - aroundMs + Math.random() * 2 * aroundMs))
        await fault(fleet, at)
        await until(async () => ((await leader())?.n ?? 0) > before.n, {
          label: `another term after ${name}`,
          deadlineMs: name === lockEnds ? 2_000 : 60_000,
        }).catch((error: unknown) => {
          // Who had the lock may be the first to have it again, under the same term.
          if (name !== lockEnds) throw error
        })
      }
    const terms = (await until(leader, { label: 'somebody leads' })).n - firstTerm
    await pause(1_500)
    const stopped = await fleet.stop()
    expect(stopped).toEqual(Array.from({ length: size }, () => 0))

    const ticks = await database.query<{ at: number; outcome: string }>(
      `select extract(epoch from planned_at)::float8 as at, outcome from forge.schedule_tick
       where schedule = 'chaos.tick' order by planned_at`,
    )
    const made = await database.query<{ at: string; n: number }>(
      `select input->>'scheduledFor' as at, count(distinct j.id)::int as n
       from (select id, input, lane from forge.job union all select id, input, lane from forge.job_history) as j
       join forge.job_lane as l on l.id = j.lane where l.name = 'chaos.tick' group by 1`,
    )
    const gaps = ticks.filter(({ at }, n) => n > 0 && at - (ticks[n - 1]?.at ?? 0) !== 1)
    process.stdout.write(`ticks: ${ticks.length} over ${terms} changes of the leader\n`)
    expect(gaps).toEqual([])
    expect(ticks.filter(({ outcome }) => outcome !== 'fired')).toEqual([])
    expect(made.filter(({ n }) => n !== 1)).toEqual([])
    expect(made).toHaveLength(ticks.length)
    expect(terms).toBeGreaterThanOrEqual(roundsEach * (Object.keys(faults).length - 1))
  },
)
