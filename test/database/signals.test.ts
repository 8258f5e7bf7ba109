import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Rider, Session } from '../../src/database/session.js'
import { type HintOf, PostgresSignals, type PostgresSignalsOptions } from '../../src/database/signals.js'
import { ClientSource } from '../../src/database/source.js'
import { statement, type Statement } from '../../src/database/statement.js'
import { ForgeError, silentLogger, systemClock } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'

const database = useDatabase({ migrated: false })

interface Delivery {
  readonly keys: readonly string[] | null
  readonly turn: number
}

/** A node with a listener on topic `ready`. */
function setup(options: Partial<PostgresSignalsOptions> = {}) {
  const pool = new pg.Pool({ connectionString: database.url })
  const source = new ClientSource(pool)
  const context = { source, schema: 'forge', clock: systemClock }
  const control = new Session(context, { purpose: 'control', statementMs: 2_000, pipeline: true })
  const warnings: string[] = []
  const logger = { ...silentLogger, warn: (text: string) => warnings.push(text) }
  const given = { source, session: control, schema: 'forge', clock: systemClock, logger, ...options }
  const signals = new PostgresSignals(given)
  const heard: Delivery[] = []
  signals.subscribe('ready', (keys) => heard.push({ keys, turn: turns.count }))
  onTestFinished(async () => {
    await signals.stop()
    await control.close()
    await pool.end()
  })
  return { signals, control, heard, warnings, keys: () => heard.flatMap(({ keys }) => keys ?? ['*']) }
}

/** Counts the turns of the event loop while `counting`. */
const turns = { count: 0, counting: false }

function countTurns(): void {
  turns.counting = true
  const next = (): void => {
    turns.count += 1
    if (turns.counting) setImmediate(next)
  }
  setImmediate(next)
  onTestFinished(() => void (turns.counting = false))
}

/** Hears what is sent, without forge. */
async function eavesdrop(channel: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: database.url })
  const messages: string[] = []
  client.on('notification', ({ payload }) => messages.push(payload ?? ''))
  await client.connect()
  await client.query(`LISTEN ${channel}`)
  onTestFinished(() => client.end())
  return messages
}

async function connections(): Promise<number> {
  const rows = await database.query(
    `SELECT FROM pg_stat_activity WHERE application_name LIKE 'forge:%' AND datname = current_database()`,
  )
  return rows.length
}

const microtask = (): Promise<void> => Promise.resolve()
const everything = { keys: null }

test('a hint reaches every node of the schema, each of them once, and no other schema', async () => {
  const [one, two, other] = [setup(), setup(), setup({ schema: 'forge_two' })]
  await Promise.all([one, two, other].map(({ signals }) => signals.start()))
  expect(two.signals.proven).toBe(true)
  await until(() => [one, two, other].every(({ heard }) => heard.length === 1), {
    label: 'all have heard the gap',
  })
  one.signals.hint('ready', 'mail')
  one.signals.hint('ready', 'mail')
  one.signals.hint('elsewhere', 'x')
  await until(() => two.heard.length > 1, { label: 'the hint arrives' })
  two.signals.hint('ready', 'back')
  await until(() => one.heard.length > 2, { label: 'the answer arrives' })
  expect(one.keys()).toEqual(['*', 'mail', 'back'])
  expect(two.keys()).toEqual(['*', 'mail', 'back'])
  expect(other.keys()).toEqual(['*'])
})

test('the own process hears a hint at once, started or not', async () => {
  const { signals, keys } = setup()
  signals.hint('ready', 'a')
  signals.hint('ready', 'b')
  expect(keys()).toEqual([])
  await microtask()
  expect(keys()).toEqual(['a', 'b'])
})

test('a lost connection of the listener ends with a look at everything', async () => {
  const { signals, heard } = setup()
  await signals.start()
  await until(() => heard.length === 1, { label: 'the first gap' })
  await database.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity 
      WHERE application_name = 'forge:listen' AND datname = current_database()`,
  )
  await until(() => heard.length === 2, { deadlineMs: 5_000, label: 'the second gap' })
  expect(heard).toMatchObject([everything, everything])
})

test('a burst of hints costs few notifications and loses no key', async () => {
  const messages = await eavesdrop('forge_forge')
  const { signals } = setup()
  for (let burst = 0; burst < 10; burst += 1) {
    for (let hint = 0; hint < 100; hint += 1) signals.hint('ready', `${burst}:${hint}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const keys = (): string[] =>
    messages.flatMap((text) => (JSON.parse(text) as { t: { ready: string[] } }).t.ready)
  await until(() => keys().length === 1_000, { label: 'all keys have arrived' })
  expect(new Set(keys()).size).toBe(1_000)
  expect(messages.length).toBeLessThanOrEqual(11)
})

test('hints that come without a pause are sent at most every 5 ms', async () => {
  const messages = await eavesdrop('forge_forge')
  const { signals, control } = setup()
  signals.hint('ready', 'first')
  await until(() => messages.length === 1, { label: 'the first is sent at once' })
  expect(control.connected).toBe(true)
  const sinceMs = performance.now()
  while (performance.now() - sinceMs < 200) {
    signals.hint('ready', 'more')
    await new Promise((resolve) => setImmediate(resolve))
  }
  const windows = (performance.now() - sinceMs) / 5
  signals.hint('ready', 'the last')
  await until(() => messages.some((text) => text.includes('the last')), { label: 'the last has arrived' })
  expect(messages.length).toBeLessThanOrEqual(windows + 3)
})

test('more keys than a message holds arrive as a look at everything', async () => {
  const [one, two] = [setup(), setup()]
  await two.signals.start()
  await until(() => two.heard.length === 1, { label: 'the gap' })
  for (let key = 0; key < 900; key += 1) one.signals.hint('ready', `a rather long key ${key}`)
  await until(() => two.heard.length > 1, { label: 'the hint arrives' })
  expect(two.heard[1]).toMatchObject(everything)
})

test('ten thousand forged messages are ignored or cost one delivery per turn of the event loop', async () => {
  const { signals, heard } = setup()
  await signals.start()
  await until(() => heard.length === 1, { label: 'the gap' })
  countTurns()
  const forged = [
    'not json',
    '{"n":"x","t":{"__proto__":["a"],"constructor":["b"]}}',
    '{"__proto__":{"n":"x","t":null}}',
    '{"n":"x","t":{"ready":[1,2]}}',
    '{"n":{},"t":[]}',
    '['.repeat(6_000),
    '{"n":"x","t":{"ready":["forged"]}}',
    '{"n":"x","t":{"ready":null}}',
  ]
  await database.query(
    `SELECT pg_notify('forge_forge', message || repeat(' ', n))
       FROM unnest($1::text[]) message, generate_series(1, 1250) n`,
    [forged],
  )
  const last = `SELECT pg_notify('forge_forge', '{"n":"x","t":{"ready":["the last"]}}')`
  await until(() => database.query(last).then(() => heard.some(({ keys }) => keys?.includes('the last'))), {
    label: 'the storm is over',
  })
  const deliveries = heard.slice(1)
  expect(new Set(deliveries.map(({ turn }) => turn)).size).toBe(deliveries.length)
  expect(deliveries.length).toBeLessThan(500)
  expect(({} as { a?: unknown }).a).toBeUndefined()
  expect(signals.proven).toBe(true)
})

describe('a statement that is run with a hint', () => {
  const answer = statement<{ key: string }>('test_answer', () => 'select $1::text as key')
  const refused = statement<{ key: string }>('test_refused', () => 'select 1 / 0 as key')
  const hintOf = (guess: string | null): HintOf<{ key: string }> => ({
    topic: 'ready',
    guess: () => guess,
    key: ([row]) => row?.key ?? 'no answer',
  })
  const keysOf = (messages: readonly string[]): string[] =>
    messages.flatMap((text) => (JSON.parse(text) as { t: { ready: string[] } }).t.ready)

  test('tells others the guess, and this process once it is answered; a right one goes out once', async () => {
    const messages = await eavesdrop('forge_forge')
    const { signals, keys } = setup()
    expect(await signals.run(answer, ['a@1'], hintOf('a@1'))).toEqual([{ key: 'a@1' }])
    await microtask()
    expect(keys()).toEqual(['a@1'])
    signals.hint('ready', 'the next')
    await until(() => keysOf(messages).includes('the next'), { label: 'the next hint arrives' })
    expect(keysOf(messages)).toEqual(['a@1', 'the next'])
  })

  test('a wrong guess, and none, are followed by what is true', async () => {
    const messages = await eavesdrop('forge_forge')
    const { signals, keys } = setup()
    await signals.run(answer, ['a@1'], hintOf('a@2'))
    await until(() => keysOf(messages).length === 2, { label: 'both arrive' })
    // While a notification was less than 5 ms ago, hints wait; the pause is over once another has gone out.
    await signals.run(answer, ['b@1'], hintOf(null))
    await until(() => keysOf(messages).length === 3, { label: 'the third arrives' })
    expect(keysOf(messages)).toEqual(['a@2', 'a@1', 'b@1'])
    expect(keys()).toEqual(['a@1', 'b@1'])
  })

  test('many in a row cost a notification every 5 ms, and no key is lost', async () => {
    const messages = await eavesdrop('forge_forge')
    const { signals } = setup()
    const sinceMs = performance.now()
    for (let i = 0; i < 300; i++) await signals.run(answer, [`${i}`], hintOf(`${i}`))
    // Timers may fire up to 1 ms early.
    const windows = (performance.now() - sinceMs) / 4
    await until(() => keysOf(messages).length === 300, { label: 'all keys have arrived' })
    expect(new Set(keysOf(messages)).size).toBe(300)
    expect(messages.length).toBeLessThanOrEqual(Math.min(windows + 3, 250))
  })

  test('fails as the session does, and hints go on', async () => {
    const messages = await eavesdrop('forge_forge')
    const { signals, keys } = setup()
    await expect(signals.run(refused, [], hintOf('a@1'))).rejects.toMatchObject({ code: '22012' })
    await signals.run(answer, ['b@1'], hintOf('b@1'))
    await until(() => keysOf(messages).includes('b@1'), { label: 'the next one arrives' })
    expect(keysOf(messages)).toEqual(['a@1', 'b@1'])
    expect(keys()).toEqual(['b@1'])
  })

  test('has its answer although the notification fails, which is counted, logged and tried once more', async () => {
    const { session, notified } = riderFails(new Error('too many notifications in the NOTIFY queue'))
    const { signals, keys, warnings } = setup({ session })
    expect(await signals.run(answer, ['a@1'], hintOf('a@1'))).toEqual([{ key: 'a@1' }])
    await until(() => notified.length > 0, { label: 'it is tried again' })
    expect(signals.notifyFailures).toBe(1)
    expect(keys()).toEqual(['a@1'])
    expect(keysOf(notified)).toEqual(['a@1'])
    expect(warnings).toEqual([expect.stringContaining('too many notifications')])
  })

  test('is heard by others when the connection breaks behind the answer, which says nothing about NOTIFY', async () => {
    const { session, notified } = riderFails(new ForgeError('FORGE_CONNECTION_LOST'))
    const { signals, warnings } = setup({ session })
    await signals.run(answer, ['a@1'], hintOf('a@1'))
    await until(() => notified.length > 0, { label: 'it goes out on the next connection' })
    expect(keysOf(notified)).toEqual(['a@1'])
    expect([signals.notifyFailures, warnings]).toEqual([0, []])
  })

  test('after stop() tells this process only', async () => {
    const messages = await eavesdrop('forge_forge')
    const { signals, keys } = setup()
    await signals.stop()
    await signals.run(answer, ['a@1'], hintOf('a@1'))
    await microtask()
    await database.query(`SELECT pg_notify('forge_forge', '{"t":{"ready":["mine"]}}')`)
    await until(() => messages.length > 0, { label: 'what was sent by the test arrives' })
    expect(keysOf(messages)).toEqual(['mine'])
    expect(keys()).toEqual(['a@1'])
  })
})

/** A session that answers each statement with its first value, whose riders fail, and what it was to notify otherwise. */
function riderFails(error: Error): Pick<PostgresSignalsOptions, 'session'> & { readonly notified: string[] } {
  const notified: string[] = []
  const run = <Row>(of: Statement<Row>, values: readonly unknown[] = [], rider?: () => Rider | null) => {
    rider?.()?.settled(error)
    if (of.name === 'forge_notify') notified.push(String(values[1]))
    return Promise.resolve([{ key: values[0] } as Row])
  }
  return { session: { run }, notified }
}

test('when NOTIFY fails, hints still work in this process, nothing throws, and one warning is logged', async () => {
  const run = (): Promise<never> => Promise.reject(new Error('too many notifications in the NOTIFY queue'))
  const { signals, keys, warnings } = setup({ session: { run } })
  for (const key of ['a', 'b', 'c']) {
    signals.hint('ready', key)
    await microtask()
    expect(keys().at(-1)).toBe(key)
  }
  await until(() => signals.notifyFailures === 2, { label: 'it was tried again' })
  expect(warnings).toEqual([expect.stringContaining('too many notifications')])
})

test('a session that throws, hangs or is closed stops neither hints nor stop()', async () => {
  const thrower = setup({
    session: {
      run: () => {
        throw new Error('at once')
      },
    },
  })
  thrower.signals.hint('ready', 'a')
  const hanging = setup({ session: { run: () => new Promise<never>(() => {}) } })
  for (const key of ['a', 'b']) {
    hanging.signals.hint('ready', key)
    await microtask()
  }
  const closed = setup()
  await closed.control.close()
  closed.signals.hint('ready', 'a')
  await until(() => thrower.signals.notifyFailures + closed.signals.notifyFailures === 2, {
    label: 'both failed',
  })
  expect(hanging.keys()).toEqual(['a', 'b'])
  await hanging.signals.stop(50)
})

test('a subscriber that throws disturbs neither its neighbours nor the process', async () => {
  const { signals, keys, warnings } = setup()
  signals.subscribe('other', () => {
    throw new Error('mine')
  })
  const end = signals.subscribe('other', () => {
    throw new Error('mine as well')
  })
  const calls: unknown[] = []
  signals.subscribe('other', (given) => calls.push(given))
  signals.hint('other', 'a')
  signals.hint('ready', 'b')
  await microtask()
  expect(calls).toEqual([['a']])
  expect(keys()).toEqual(['b'])
  expect(warnings).toEqual([expect.stringContaining('mine')])
  end()
})

test('stop sends what was hinted before it, and leaves no connection', async () => {
  const messages = await eavesdrop('forge_forge')
  const { signals, control } = setup()
  await signals.start()
  signals.hint('ready', 'first')
  await microtask()
  signals.hint('ready', 'last words')
  await signals.stop()
  await control.close()
  await until(() => messages.some((text) => text.includes('last words')), { label: 'the last words arrive' })
  signals.hint('ready', 'too late')
  await until(async () => (await connections()) === 0, { label: 'no connection is left' })
  expect(signals.listening).toBe('off')
  expect(messages.join()).not.toContain('too late')
})

test('schema names of any length have channels of their own', async () => {
  const long = 'a'.repeat(62)
  const [one, two, same] = [
    setup({ schema: `${long}1` }),
    setup({ schema: `${long}2` }),
    setup({ schema: `${long}1` }),
  ]
  await Promise.all([two, same].map(({ signals }) => signals.start()))
  await until(() => [two, same].every(({ heard }) => heard.length === 1), { label: 'the gaps' })
  one.signals.hint('ready', 'x')
  await until(() => same.heard.length === 2, { label: 'the hint arrives' })
  two.signals.hint('ready', 'y')
  await until(() => two.heard.length === 2, { label: 'the other hint arrives' })
  expect(two.keys()).toEqual(['*', 'y'])
})
