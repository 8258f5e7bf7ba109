import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createForge, type ForgeNode } from '../../src/index.js'
import { type Proxy, startProxy } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { type Random, randomFrom } from '../testing/random.js'
import type { Told } from './clients.js'
import { addressOf, Fleet } from './fleet.js'
import { judgeStorm } from './judge.js'
import { chaosSeed } from './nemesis.js'
import { long } from './nodes.js'
import { installRecorder } from './recorder.js'
import type { ChaosInput } from './worker.js'

const database = useDatabase()
const cuts = long ? 500 : 30
const seed = chaosSeed()
const random = randomFrom(seed)
const forge = createForge()
const work = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
let proxy: Proxy
let client: ForgeNode
let fleet: Fleet

beforeAll(async () => {
  await installRecorder(database.query)
  proxy = await startProxy({ target: addressOf(database.url) })
  const pool = database.pool({ connectionString: proxy.url(database.url), max: 4 })
  client = await forge.attach(null, pool, { roles: ['gateway'], logger: false })
  const options = { roles: ['worker'], lease: { ms: 3_000, renewMs: 500 } } as const
  fleet = await Fleet.start({ url: database.url, size: 2, options })
})
afterAll(async () => {
  await fleet[Symbol.asyncDispose]()
  await client.stop()
  await proxy.stop()
})

/** Where the answer is swallowed that somebody waits for: it is unknown then whether the server did it. */
const answersTo = {
  client: ['forge_insert', 'commit\0'],
  worker: ['forge_exchange', 'forge_complete', 'forge_finish', 'commit\0'],
} as const

/** One broken connection, at a random byte or between a commit and its answer. False when nothing came along to break. */
async function cutOnce(dice: Random): Promise<boolean> {
  const who = dice.chance(0.5) ? 'client' : 'worker'
  const victim = who === 'client' ? proxy : dice.pick(fleet.members).proxy
  const order = dice.chance(0.7)
    ? victim.cutAfterBytes({ direction: 'toServer', match: dice.pick<string>(answersTo[who]) })
    : victim.cutAfterBytes({ direction: dice.pick(['toServer', 'toClient']), bytes: dice.int(0, 3_000) })
  const happened = await order.happened({ deadlineMs: 1_000 }).then(
    () => true,
    () => false,
  )
  order.cancel()
  return happened
}

const told: Told[] = []
const counts = { repeats: 0, unknown: 0 }

/** Repeats the same enqueue until it is acknowledged, as a careful client does: the id makes that harmless. */
async function enqueueSurely(dice: Random): Promise<void> {
  const [id, inTransaction] = [randomUUID(), dice.chance(0.5)]
  const input = { ms: dice.int(0, 10), how: dice.pick(['return', 'transaction'] as const) }
  for (;;) {
    try {
      if (inTransaction) await client.transaction((tx) => work.enqueue(input, { id, tx }))
      else await work.enqueue(input, { id })
      told.push({ id, how: input.how, fate: 'acked' })
      return
    } catch (error) {
      counts.repeats += 1
      if ((error as { code?: string }).code === 'FORGE_COMMIT_UNKNOWN') counts.unknown += 1
    }
  }
}

it(
  `${cuts} cut connections lose nothing and double nothing (FORGE_SEED=${seed})`,
  { timeout: cuts * 1_000 + 120_000 },
  async () => {
    let enqueuing = true
    const flow = async (): Promise<void> => {
      while (enqueuing) {
        await enqueueSurely(random)
        await pause(15)
      }
    }
    const flows = Array.from({ length: 6 }, flow)
    const dice = randomFrom(seed + 1)
    for (let happened = 0; happened < cuts;) if (await cutOnce(dice)) happened += 1
    enqueuing = false
    await Promise.all(flows)
    const left = async (): Promise<unknown> => (await database.query('select from forge.job limit 1'))[0]
    await until(async () => !(await left()), { deadlineMs: 60_000, label: 'all jobs ended' }).catch(() => {})

    const verdict = await judgeStorm(database.query, { told, batches: [] })
    process.stdout.write(
      `unknown outcomes: ${cuts} cuts, ${counts.repeats} enqueues repeated by the client ` +
        `(${counts.unknown} of them with an unknown commit); ${verdict.summary}\n`,
    )
    expect(verdict.findings, `FORGE_SEED=${seed}`).toEqual([])
    // Else no cut hit an enqueue or a commit. Measured at 3 to 8 and 1 to 4 in 30 cuts.
    expect(counts.repeats).toBeGreaterThan(0)
    if (long) expect(counts.unknown).toBeGreaterThan(0)
    expect(await fleet.stop()).toEqual([0, 0])
  },
)
