import { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { type Pooler, type Session, statement } from '../../src/database/index.js'
import type { Rider } from '../../src/database/session.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { proxyTo, sessionOf, sourceOf } from './kit.js'

const database = useDatabase()

const add = statement<{ xid: string }>(
  'test_rider_add',
  (s) => `insert into ${s}.job_queue (queue) values ($1) returning pg_current_xact_id()::text as xid`,
)
const nap = statement('test_rider_nap', () => 'select from pg_sleep($1::float8)')
const one = statement<{ one: number }>('test_rider_one', () => 'select 1 as one')
const wrong = statement('test_rider_wrong', () => 'select 1 / $1::int')
/** What the rider sees, in a place where the test can look. */
const look = statement(
  'test_rider_look',
  (s) => `insert into ${s}.job_queue (queue)
    select 'seen ' || queue || ' in ' || pg_current_xact_id()::text from ${s}.job_queue where queue = $1`,
)

interface Ride {
  readonly ask: () => Rider
  /** When it was asked for, when it settled, and with what. */
  readonly order: string[]
  readonly outcomes: unknown[]
}

function ride(of: Pick<Rider, 'statement' | 'values'>, order: string[] = []): Ride {
  const outcomes: unknown[] = []
  const settled = (error: unknown): void => {
    order.push('rider')
    outcomes.push(error)
  }
  const ask = (): Rider => {
    order.push('asked')
    return { ...of, settled }
  }
  return { ask, order, outcomes }
}

/** A session, and all that its connections write. */
function overheard(
  pipeline: boolean,
  pooler: Pooler,
): { readonly session: Session; readonly written: () => string } {
  let written = ''
  const stream = (): Socket => {
    const socket = new Socket()
    const write = (chunk: Uint8Array | string): boolean => Socket.prototype.write.call(socket, chunk)
    // Not before: connect() takes off whatever stands in the place of write.
    socket.once('connect', () => {
      socket.write = (chunk: Uint8Array | string) => {
        written += Buffer.from(chunk as string).toString('latin1')
        return write(chunk)
      }
    })
    return socket
  }
  const source = sourceOf({ connectionString: database.url, stream })
  source.pooler = pooler
  const session = sessionOf(source, { pipeline })
  return { session, written: () => written }
}

describe.each(['none', 'session', 'transaction'] as const)('a rider, pooler: %s', (pooler) => {
  const open = (url = database.url, options: Parameters<typeof sessionOf>[1] = {}): Session => {
    const source = sourceOf({ connectionString: url })
    source.pooler = pooler
    return sessionOf(source, { pipeline: true, ...options })
  }

  test('begins when its statement has committed, in a transaction of its own', async () => {
    const session = open()
    const { ask, outcomes } = ride({ statement: look, values: [`own ${pooler}`] })
    const [made] = await session.run(add, [`own ${pooler}`], ask)
    await until(() => outcomes.length > 0, { label: 'the rider has settled' })
    const rows = await database.query<{ queue: string }>(
      `select queue from forge.job_queue where queue like 'seen own ${pooler} in %'`,
    )
    expect(outcomes).toEqual([null])
    expect(rows).toHaveLength(1)
    expect(rows[0]?.queue).not.toContain(made?.xid)
  })

  test('is not waited for by its statement, but by the next one', async () => {
    const session = open()
    const { ask, order } = ride({ statement: nap, values: [0.1] })
    const first = session.run(one, [], ask).then(() => order.push('first'))
    const second = session.run(one).then(() => order.push('second'))
    await Promise.all([first, second])
    expect(order).toEqual(['asked', 'first', 'rider', 'second'])
  })

  test('is asked for when its statement goes out', async () => {
    const session = open()
    const { ask, order } = ride({ statement: one, values: [] })
    const before = session.run(nap, [0.05]).then(() => order.push('before'))
    await session.run(one, [], ask)
    await before
    expect(order.slice(0, 2)).toEqual(['before', 'asked'])
  })

  test('goes out also behind a statement that is refused', async () => {
    const session = open()
    const { ask, outcomes } = ride({ statement: one, values: [] })
    await expect(session.run(wrong, [0], ask)).rejects.toMatchObject({ code: '22012' })
    expect(await session.run(one)).toEqual([{ one: 1 }])
    expect(outcomes).toEqual([null])
  })

  test('that is refused itself concerns nobody else', async () => {
    const session = open()
    const { ask, outcomes } = ride({ statement: wrong, values: [0] })
    expect(await session.run(one, [], ask)).toEqual([{ one: 1 }])
    expect(await session.run(one)).toEqual([{ one: 1 }])
    expect(outcomes).toMatchObject([{ code: '22012' }])
  })

  test('under which the connection breaks says so once, and the next statement opens another', async () => {
    const session = open()
    const { ask, outcomes } = ride({ statement: nap, values: [30] })
    expect(await session.run(one, [], ask)).toEqual([{ one: 1 }])
    const next = session.run(one)
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'forge:test' and datname = current_database()`,
    )
    expect(await next).toEqual([{ one: 1 }])
    expect(outcomes).toMatchObject([{ code: 'FORGE_CONNECTION_LOST' }])
  })

  test('settles before the session is closed', async () => {
    const session = open()
    const { ask, outcomes } = ride({ statement: nap, values: [0.1] })
    await session.run(one, [], ask)
    await session.close()
    expect(outcomes).toEqual([null])
  })

  test('behind a statement that a silent server leaves without an answer settles as well', async () => {
    const proxy = await proxyTo(database.url)
    const session = open(proxy.databaseUrl, { statementMs: 100 })
    await session.run(one)
    proxy.blackhole()
    const { ask, outcomes } = ride({ statement: one, values: [] })
    await expect(session.run(one, [], ask)).rejects.toMatchObject({ code: 'FORGE_DEADLINE' })
    await until(() => outcomes.length > 0, { label: 'the rider has settled' })
    expect(outcomes).toMatchObject([
      { code: expect.stringMatching(/^FORGE_(DEADLINE|CONNECTION_LOST)$/) as string },
    ])
    proxy.resume()
    expect(await session.run(one)).toEqual([{ one: 1 }])
  })

  test('that is never asked for when there is no connection', async () => {
    const session = open('postgres://nobody@127.0.0.1:1/none')
    const { ask, order } = ride({ statement: one, values: [] })
    await expect(session.run(one, [], ask)).rejects.toMatchObject({ code: 'FORGE_DATABASE_UNREACHABLE' })
    expect(order).toEqual([])
  })
})

test.each([
  { pipeline: true, pooler: 'none', early: true },
  { pipeline: false, pooler: 'none', early: false },
  { pipeline: true, pooler: 'session', early: false },
] as const)(
  'is written before its statement is answered: $early with %j',
  async ({ early, pipeline, pooler }) => {
    const { session, written } = overheard(pipeline, pooler)
    await session.run(one)
    const { ask, outcomes } = ride({ statement: look, values: ['nothing'] })
    let answered = false
    const first = session.run(nap, [1], ask).then(() => (answered = true))
    // Handed out in the turn that follows; the nap is much longer.
    await new Promise((turn) => setImmediate(turn))
    expect(written()).toContain('pg_sleep')
    expect([written().includes('seen '), answered]).toEqual([early, false])
    await first
    await until(() => outcomes.length === 1, { label: 'the rider has settled' })
    expect(written()).toContain('seen ')
    expect(outcomes).toEqual([null])
  },
)
