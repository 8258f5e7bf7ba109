import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { quoteSchema, type Statement } from '../../src/database/index.js'
import { createForge } from '../../src/index.js'
import { exchangeJobs } from '../../src/jobs/queries/claim.js'
import { completeClaim, completeJobs } from '../../src/jobs/queries/complete.js'
import { finishJobs, putBackJobs } from '../../src/jobs/queries/finish.js'
import { quarantineJobs, rescueJobs } from '../../src/jobs/queries/upkeep.js'
import { markClaimed } from '../support/claimed.js'
import { useDatabase } from '../support/database.js'
import { randomFrom } from '../testing/random.js'
import { chaosSeed } from './nemesis.js'
import { long } from './nodes.js'

/* The engine's own statements, from two sessions, on the same rows of a node that is dead. */
const database = useDatabase()
const [races, jobsEach] = long ? [10_000, 10] : [500, 10]
const seed = chaosSeed()
const random = randomFrom(seed)
const schema = quoteSchema('forge')
const crashesMax = 3
const keepMs = 86_400_000
let sweeper: pg.Client
let finisher: pg.Client

beforeAll(async () => {
  // Makes the partitions and the lane. It must not stay: its own sweep would join the races.
  const forge = createForge()
  const work = forge.job('chaos', { run: () => null })
  const node = await forge.attach(null, database.pool(), { roles: ['gateway'], logger: false })
  await work.enqueue(null)
  await node.stop()
  await database.query('delete from forge.job')
  ;[sweeper, finisher] = [
    new pg.Client({ connectionString: database.url }),
    new pg.Client({ connectionString: database.url }),
  ]
  await Promise.all([sweeper.connect(), finisher.connect()])
})
afterAll(async () => {
  await Promise.all([sweeper.end(), finisher.end()])
})

const run = async <Row>(
  client: pg.Client,
  statement: Statement<Row>,
  values: readonly unknown[],
): Promise<Row[]> =>
  (await client.query({ name: statement.name, text: statement.text(schema), values: [...values] }))
    .rows as Row[]

type Ids = readonly string[]
const each = <T>(ids: Ids, value: T): T[] => ids.map(() => value)

/** Where the claim left each row, and by which transaction in which file. */
async function placesOf(ids: Ids): Promise<{ readonly tids: string[]; readonly stamp: string }> {
  const { rows } = await finisher.query<{ id: string; tid: string; stamp: string }>(
    `select id, ctid::text as tid, xmin::text || '/' || pg_relation_filenode('forge.job'::regclass) as stamp
     from forge.job where id = any ($1)`,
    [ids],
  )
  const tids = new Map(rows.map(({ id, tid }) => [id, tid]))
  return { tids: ids.map((id) => tids.get(id) ?? '(0,0)'), stamp: rows[0]?.stamp ?? '0/0' }
}

const completion = async (ids: Ids, token: string): Promise<unknown[]> => {
  return [ids, (await placesOf(ids)).tids, each(ids, 1), null, [token], [keepMs], [token]]
}

/** How a worker hands in what it finished; gives the ids that were accepted. */
const endings = {
  complete: async (ids: Ids, token: string): Promise<string[]> => {
    const missed = (await run(finisher, completeJobs, await completion(ids, token)))[0]?.missed ?? ''
    return ids.filter((id) => !missed.includes(id))
  },
  /** With a claim that finds nothing. */
  exchange: async (ids: Ids, token: string): Promise<string[]> => {
    const claim = [randomUUID(), randomUUID(), randomUUID(), [], [], [], [], [], [], [0]]
    const values = [...claim, ...(await completion(ids, token))]
    const missed = (await run(finisher, exchangeJobs, values))[0]?.missed ?? ''
    return ids.filter((id) => !missed.includes(id))
  },
  completeClaim: async (ids: Ids, token: string): Promise<string[]> => {
    const { tids, stamp } = await placesOf(ids)
    const accepted = (await run(finisher, completeClaim, [tids, token, stamp, keepMs, [token]]))[0]?.accepted
    return accepted === null ? [...ids] : ids.filter((id) => accepted?.includes(id))
  },
  finish: async (ids: Ids, token: string): Promise<string[]> => {
    const facts = [each(ids, 7), each(ids, null), each(ids, false), each(ids, null), each(ids, null)]
    const values = [ids, each(ids, token), ...facts, each(ids, keepMs), false]
    return (await run(finisher, finishJobs, values)).map(({ id }) => id)
  },
  putBack: async (ids: Ids, token: string): Promise<string[]> => {
    const facts = [each(ids, 4), each(ids, 60_000), each(ids, 0), each(ids, null)]
    return (await run(finisher, putBackJobs, [ids, each(ids, token), ...facts])).map(({ id }) => id)
  },
} as const
type Ending = keyof typeof endings

async function sweep(): Promise<string[]> {
  const rescued = await run(sweeper, rescueJobs, [crashesMax])
  const quarantined = await run(sweeper, quarantineJobs, [crashesMax, keepMs, [], []])
  return [...rescued, ...quarantined].map(({ id }) => id)
}

interface Winners {
  readonly swept: readonly string[]
  readonly finished: readonly string[]
}

/** Who is first, and who comes while the first one's transaction is open. */
const interleavings = {
  together: async (ids: Ids, token: string, ending: Ending): Promise<Winners> => {
    const [swept, finished] = await Promise.all([sweep(), endings[ending](ids, token)])
    return { swept, finished }
  },
  sweepFirst: async (ids: Ids, token: string, ending: Ending): Promise<Winners> => {
    await sweeper.query('begin')
    const swept = await sweep()
    const finishing = endings[ending](ids, token)
    await sweeper.query('commit')
    return { swept, finished: await finishing }
  },
  sweepUndone: async (ids: Ids, token: string, ending: Ending): Promise<Winners> => {
    await sweeper.query('begin')
    await sweep()
    // What passes rows over that are locked would find nothing.
    const waits = ending === 'finish' || ending === 'putBack' ? 'complete' : ending
    const finishing = endings[waits](ids, token)
    await sweeper.query('rollback')
    return { swept: [], finished: await finishing }
  },
  finishFirst: async (ids: Ids, token: string, ending: Ending): Promise<Winners> => {
    await finisher.query('begin')
    const finished = await endings[ending](ids, token)
    const swept = await sweep()
    await finisher.query('commit')
    return { swept, finished }
  },
} as const

async function insertJobs(n: number): Promise<string[]> {
  const rows = await database.query<{ id: string }>(
    `insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input)
     select gen_random_uuid(), job_lane.id, 2, 2, 50, 5, now(), 'null' from forge.job_lane, generate_series(1, $1)
     returning id`,
    [n],
  )
  return rows.map(({ id }) => id)
}

/** Of these jobs, those that stand as somebody's sweep or as their worker's end left them. */
async function standing(ids: Ids): Promise<Winners> {
  const rows = await database.query<{ id: string; swept: boolean }>(
    `select id, state = 2 and crashes = 1 and token is null as swept from forge.job where id = any ($1)
     union all select id, state = 8 from forge.job_history where id = any ($1)`,
    [ids],
  )
  return {
    swept: rows.filter(({ swept }) => swept).map(({ id }) => id),
    finished: rows.filter(({ swept }) => !swept).map(({ id }) => id),
  }
}

it(
  `lets exactly one win in ${races} races of a sweep against the worker it buries (FORGE_SEED=${seed})`,
  { timeout: 300_000 },
  async () => {
    const won = { swept: 0, finished: 0 }
    for (let race = 0; race < races; race += jobsEach) {
      const ids = await insertJobs(jobsEach)
      // At their last crash jobs are quarantined instead of taken back.
      const set = random.chance(0.3) ? { crashes: crashesMax - 1 } : {}
      const token = await markClaimed(database, ids, { set })
      const ending = random.pick(['complete', 'exchange', 'completeClaim', 'finish', 'putBack'] as const)
      const how = random.pick(['together', 'together', 'sweepFirst', 'sweepUndone', 'finishFirst'] as const)
      const { swept, finished } = await interleavings[how](random.shuffle(ids), token, ending)

      const label = `${how}, ${ending}, FORGE_SEED=${seed}`
      expect([...swept, ...finished].sort(), label).toEqual([...ids].sort())
      const found = await standing(ids)
      expect([...found.swept].sort(), label).toEqual([...swept].sort())
      expect([...found.finished].sort(), label).toEqual([...finished].sort())
      won.swept += swept.length
      won.finished += finished.length
      await database.query('delete from forge.job')
    }
    process.stdout.write(`races: the sweep won ${won.swept}, the worker ${won.finished} of ${races}\n`)
    expect(Math.min(won.swept, won.finished)).toBeGreaterThan(races / 20)
  },
)
