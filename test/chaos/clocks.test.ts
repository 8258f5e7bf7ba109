import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { createForge, type Role } from '../../src/index.js'
import { checkHistory } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { fromDebian } from './debian.js'
import { long, startNode, stopNode } from './nodes.js'
import { installRecorder, readRecording } from './recorder.js'
import type { ChaosInput } from './worker.js'

/* Nodes whose wall clocks are wrong: what is due is for the database's clock to say. */
const database = useDatabase()

const faketime = fromDebian('faketime', [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1',
])

describe.skipIf(faketime === null)('with wrong clocks', () => {
  it('five minutes apart, starts nothing early and loses nothing', async () => {
    await installRecorder(database.query)
    const lease = { ms: 3_000, renewMs: 500 }
    const before = await database.query('select now() as at')
    const fakes = ['+5m', '-5m'].map((FAKETIME) => ({
      LD_PRELOAD: faketime as string,
      FAKETIME,
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    }))
    const orders = { produceMs: 40, delayMs: 1_500, ticks: true }
    // Whoever fires schedules has a clock that is wrong, one way or the other.
    const rolesOf = (env: object) =>
      (Object.keys(env).length > 0 ? ['worker', 'scheduler'] : ['worker']) as Role[]
    const nodes = await Promise.all(
      [{}, ...fakes].map((env) =>
        startNode(database.url, { ...orders, env, options: { roles: rolesOf(env), lease } }),
      ),
    )
    await using stack = new AsyncDisposableStack()
    for (const node of nodes) stack.use(node)
    const clocks = nodes.map(({ messages }) => (messages[0] as { wallMs: number }).wallMs)
    expect(Math.max(...clocks) - Math.min(...clocks)).toBeGreaterThan(9 * 60_000)

    const forge = createForge()
    const work = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
    await using gateway = await forge.attach(null, database.pool(), { roles: ['gateway'], logger: false })
    const enqueued: { id: string; acked: boolean }[] = []
    for (const how of ['throw', 'snooze', 'transaction', 'return'] as const)
      for (let n = 0; n < 10; n++) {
        const { id } = await work.enqueue({ ms: 5, how }, { delay: '1s' })
        enqueued.push({ id, acked: true })
      }
    await pause(2_000)
    // Whichever leads gives up; the other one's clock is wrong the other way.
    const leaderId = (await gateway.cluster.leader('scheduler'))?.node ?? ''
    await gateway.cluster.drain(leaderId)
    await until(
      async () => ![leaderId, undefined].includes((await gateway.cluster.leader('scheduler'))?.node),
      {
        label: 'the other one leads',
      },
    )
    await pause(2_000)
    const seen = await gateway.cluster.nodes()
    const off = seen.map(({ load }) => Math.round((load?.clockMs ?? 0) / 60_000) || 0).sort((a, b) => a - b)
    expect(off).toEqual([-5, 0, 0, 5])
    expect(await gateway.health()).toMatchObject({ ready: true })
    await Promise.all(nodes.map((node) => node.send({ kind: 'quiet' })))
    const left = async (): Promise<unknown> => (await database.query('select from forge.job limit 1'))[0]
    await until(async () => !(await left()), { deadlineMs: 30_000, label: 'all jobs ended' })
    expect(await Promise.all(nodes.map(stopNode))).toEqual([0, 0, 0])

    for (const { messages } of nodes)
      for (const message of messages)
        if ((message as { kind?: string }).kind === 'enqueued')
          enqueued.push(message as { id: string; acked: boolean })
    const recording = await readRecording(database.query, enqueued)
    const ids = new Set(enqueued.map(({ id }) => id))
    const verdict = checkHistory(
      recording.events.filter(({ job }) => ids.has(job)),
      { attemptsMax: 2 },
    )
    expect(verdict.ok, verdict.summary).toBe(true)
    expect(recording).toMatchObject({ deadClaims: 0, crashes: 0 })
    const [times] = await database.query<{ early: number; late_ms: number; ran: number }>(
      `select count(*) filter (where claimed_at < run_at)::int as early, count(*)::int as ran,
              (max(extract(epoch from claimed_at - run_at)) * 1000)::float8 as late_ms
       from forge.job_history where created_at > $1`,
      [before[0]?.at],
    )
    process.stdout.write(
      `clocks: ${times?.ran} delayed jobs, none early, at most ${times?.late_ms.toFixed(0)} ms late\n`,
    )
    const ticks = await ticksOfEachSecond(before[0]?.at)
    expect(ticks).toBeGreaterThan(4)
    expect(times).toMatchObject({ early: 0, ran: enqueued.length + ticks })
    expect(times?.late_ms).toBeLessThan(10_000)
  })

  const stepsTimeout = { timeout: long ? 900_000 : 60_000 }
  it('that step back and forth, fires each second once', stepsTimeout, async () => {
    const [before] = await database.query<{ at: Date }>('select now() as at')
    const directory = mkdtempSync(path.join(tmpdir(), 'forge-clock-'))
    await using stack = new AsyncDisposableStack()
    stack.defer(() => rmSync(directory, { recursive: true }))
    const clock = path.join(directory, 'clock')
    const step = (offset: string): void => {
      // Renamed over the old one, so that nobody reads half of it.
      writeFileSync(`${clock}.next`, offset)
      renameSync(`${clock}.next`, clock)
    }
    step('+0')
    const node = await startNode(database.url, {
      ticks: true,
      options: { roles: ['worker', 'scheduler'], lease: { ms: 3_000, renewMs: 500 } },
      env: {
        LD_PRELOAD: faketime as string,
        FAKETIME_TIMESTAMP_FILE: clock,
        FAKETIME_NO_CACHE: '1',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      },
    })
    stack.use(node)
    await using gateway = await createForge().attach(null, database.pool(), {
      roles: ['gateway'],
      logger: false,
    })
    const minutesOff = async (): Promise<number> => {
      const seen = (await gateway.cluster.nodes()).find(
        ({ pid, state }) => pid === node.pid && state === 'active',
      )
      const { clockMs = Number.NaN } = seen?.load ?? {}
      return Number.isNaN(clockMs) ? clockMs : Math.round(-clockMs / 60_000) || 0
    }
    const steps = long ? Array.from({ length: 20 }, () => [5, -5, 0, 60, -60]).flat() : [5, -5, 0]
    for (const minutes of steps) {
      step(`${minutes < 0 ? '' : '+'}${minutes}m`)
      await until(async () => (await minutesOff()) === minutes, { label: `its clock is ${minutes} min off` })
      await pause(2_200)
    }
    expect(await stopNode(node)).toBe(0)
    const ticks = await ticksOfEachSecond(before?.at)
    process.stdout.write(
      `clocks: ${ticks} ticks over ${steps.length} steps of the clock, none early or doubled\n`,
    )
    expect(ticks).toBeGreaterThan(2 * steps.length)
  })
})

/** How many ticks, after none of them was early, missed, doubled, or other than a second after the one before. */
async function ticksOfEachSecond(since: unknown): Promise<number> {
  const ticks = await database.query<{ at: number; early: boolean; outcome: string }>(
    `select extract(epoch from planned_at)::float8 as at, fired_at < planned_at as early, outcome
     from forge.schedule_tick where schedule = 'chaos.tick' and planned_at > $1 order by planned_at`,
    [since],
  )
  expect(ticks.filter(({ early, outcome }) => early || outcome !== 'fired')).toEqual([])
  expect(ticks.filter(({ at }, n) => n > 0 && at - (ticks[n - 1]?.at ?? 0) !== 1)).toEqual([])
  const made = await database.query<{ n: number }>(
    `select count(distinct j.id)::int as n
     from (select id, input, lane from forge.job union all select id, input, lane from forge.job_history) as j
     join forge.job_lane as l on l.id = j.lane
     where l.name = 'chaos.tick' and (input->>'scheduledFor')::timestamptz > $1 group by input->>'scheduledFor'`,
    [since],
  )
  expect(made.map(({ n }) => n)).toEqual(ticks.map(() => 1))
  return ticks.length
}
