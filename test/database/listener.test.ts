import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { Listener, type ListenerOptions, type ListenerState } from '../../src/database/listener.js'
import { notify } from '../../src/database/queries.js'
import { Session } from '../../src/database/session.js'
import { ClientSource } from '../../src/database/source.js'
import { silentLogger, systemClock } from '../../src/kernel/index.js'
import { type Proxy, type ProxyConnection, startProxy } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { countingClock } from './counting-clock.js'
import { failure, fakeServer, loggedIn } from './fake-server.js'

const database = useDatabase({ migrated: false })
const channel = 'forge_test'
const quick = { probeMs: 200, probeDeadlineMs: 500 }

const isListener = (connection: ProxyConnection): boolean => connection.applicationName === 'forge:listen'

interface Seen {
  readonly payloads: string[]
  readonly states: ListenerState[]
  readonly warnings: string[]
  gaps: number
}

function setup(options: Partial<ListenerOptions> & { url?: string } = {}) {
  const pool = new pg.Pool({ connectionString: options.url ?? database.url })
  const source = new ClientSource(pool)
  const control = new Session(
    { source, schema: 'forge', clock: systemClock },
    { purpose: 'control', statementMs: 2_000 },
  )
  const seen: Seen = { payloads: [], states: [], warnings: [], gaps: 0 }
  const listener = new Listener({
    source,
    clock: systemClock,
    logger: { ...silentLogger, warn: (text) => seen.warnings.push(text) },
    channel,
    probe: async (payload) => void (await control.run(notify, [channel, payload])),
    onMessage: (payload) => seen.payloads.push(payload),
    onGap: () => (seen.gaps += 1),
    onChange: (state) => seen.states.push(state),
    ...options,
  })
  onTestFinished(async () => {
    await listener.stop()
    await control.close()
    await pool.end()
  })
  return { listener, seen, source, control }
}

async function proxied(): Promise<{ proxy: Proxy; url: string }> {
  const { hostname: host, port } = new URL(database.url)
  const proxy = await startProxy({ target: { host, port: Number(port) } })
  onTestFinished(() => proxy.stop())
  return { proxy, url: proxy.url(database.url) }
}

async function backends(): Promise<number[]> {
  const rows = await database.query<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE application_name = 'forge:listen' AND datname = current_database()`,
  )
  return rows.map(({ pid }) => pid)
}

async function send(payload: string): Promise<void> {
  await database.query('SELECT pg_notify($1, $2)', [channel, payload])
}

/** In the check phase: what arrives meanwhile is read only after the timers that became due meanwhile. */
function blockSoon(ms: number): void {
  setImmediate(() => {
    const sinceMs = performance.now()
    while (performance.now() - sinceMs < ms);
  })
}

test('whatever is sent on the channel arrives as the string that it is', async () => {
  const { listener, seen } = setup()
  await listener.start()
  expect(listener.proven).toBe(true)
  const sent = ['', 'plain', '{"not json', 'ünï\u2028', 'x'.repeat(7_999)]
  for (const payload of sent) await send(payload)
  await until(() => seen.payloads.length === sent.length, { label: 'all payloads arrived' })
  expect(seen.payloads).toEqual(sent)
  expect(seen.states).toEqual(['connecting', 'proven'])
  expect(seen.gaps).toBe(1)
})

test('a killed listener backend is replaced, and what was missed meanwhile is announced as a gap', async () => {
  const { listener, seen } = setup()
  await listener.start()
  const before = await backends()
  await database.query('SELECT pg_terminate_backend($1)', [before[0]])
  await until(() => seen.states.includes('proven') && seen.gaps === 2 && listener.proven, {
    deadlineMs: 5_000,
    label: 'it listens again',
  })
  expect(await backends()).toHaveLength(1)
  expect(await backends()).not.toEqual(before)
  await send('again')
  await until(() => seen.payloads.includes('again'), { label: 'the message arrived' })
})

test('a connection that breaks at any byte of its beginning breaks nothing else', async () => {
  const { proxy, url } = await proxied()
  for (let bytes = 0; bytes < 620; bytes += 31) {
    const cut = proxy.cutAfterBytes({ direction: 'toClient', bytes, only: isListener })
    const { listener } = setup({ url, ...quick })
    await listener.start()
    await cut.happened()
    await until(() => listener.proven, {
      deadlineMs: 5_000,
      label: `it listens after a cut at byte ${bytes}`,
    })
    await listener.stop()
  }
})

test('backends killed as soon as they appear, over and over, never throw into the process', async () => {
  const { listener, seen } = setup(quick)
  const begun = listener.start()
  for (let killed = 0; killed < 25; killed += 1) {
    const pid = await until(async () => (await backends())[0], { label: 'it connects' })
    await database.query('SELECT pg_terminate_backend($1)', [pid])
  }
  await begun
  await until(() => listener.proven, { deadlineMs: 5_000, label: 'it listens again' })
  expect(seen.gaps).toBeGreaterThan(1)
})

test('an outage of any length ends with a listener that listens', async () => {
  const { proxy, url } = await proxied()
  const { listener, seen } = setup({ url })
  await listener.start()
  proxy.cut()
  await until(() => listener.state === 'connecting', { label: 'the loss is noticed' })
  const downMs = performance.now()
  await until(() => performance.now() - downMs > 4_000, { label: 'the outage is longer than 3 s' })
  expect(listener.state).toBe('connecting')
  proxy.heal()
  await until(() => listener.proven, { deadlineMs: 5_000, label: 'it listens again' })
  expect(seen.gaps).toBe(2)
  expect(await backends()).toHaveLength(1)
})

test('a start while the database is away does not fail, and succeeds later by itself', async () => {
  const { proxy, url } = await proxied()
  proxy.cut()
  const { listener } = setup({ url, startMs: 300 })
  await listener.start()
  expect(listener.state).toBe('connecting')
  proxy.heal()
  await until(() => listener.proven, { deadlineMs: 5_000, label: 'it listens' })
})

test('a half-open connection is noticed by its silence and replaced, while the control connection lives', async () => {
  const { proxy, url } = await proxied()
  const { listener, seen, control } = setup({ url, ...quick })
  await listener.start()
  const old = proxy.connections().find(isListener)
  proxy.blackhole({ only: (connection) => connection === old })
  await until(() => listener.state === 'connecting', { deadlineMs: 2_000, label: 'the silence is noticed' })
  await until(() => listener.proven, { deadlineMs: 2_000, label: 'it listens on another connection' })
  expect(seen.gaps).toBe(2)
  expect(control.connected).toBe(true)
})

test('a probe that cannot be sent proves nothing against the connection, and the proof lapses', async () => {
  let down = false
  const { control, listener, seen } = setup({
    ...quick,
    probe: async (payload) => {
      if (down) throw new Error('the other connection is down')
      await control.run(notify, [channel, payload])
    },
  })
  await listener.start()
  const before = await backends()
  down = true
  await until(() => !listener.proven, { label: 'the proof lapses' })
  down = false
  await until(() => listener.proven, { label: 'it is proven again' })
  expect(await backends()).toEqual(before)
  expect(seen.gaps).toBe(1)
})

test('behind a transaction-mode pooler that is known it stays off and says why, once', async () => {
  const { listener, seen, source } = setup()
  source.pooler = 'transaction'
  await listener.start()
  await listener.start()
  expect(listener.state).toBe('off')
  expect(await backends()).toEqual([])
  expect(seen.warnings).toEqual([expect.stringContaining('transaction-mode pooler')])
})

test('behind a transaction-mode pooler that shows later it is deaf, says why once, and seldom tries again', async () => {
  const { listener, seen, source } = setup({ ...quick, probeDeadlineMs: 50, probe: async () => {} })
  const begun = listener.start()
  source.pooler = 'transaction'
  await until(() => listener.state === 'deaf', { label: 'it knows that it is deaf' })
  await begun
  expect(seen.warnings).toEqual([expect.stringContaining('transaction-mode pooler')])
  expect(seen.gaps).toBe(2)
  await until(async () => (await backends()).length === 0, { label: 'the deaf connection is gone' })
  expect(seen.states).toEqual(['connecting', 'deaf'])
})

test('deaf without a pooler it goes on trying at the usual pace, and is proven as soon as it hears', async () => {
  let swallowed = true
  const { control, listener, seen } = setup({
    ...quick,
    probeDeadlineMs: 50,
    probe: async (payload) => {
      if (!swallowed) await control.run(notify, [channel, payload])
    },
  })
  await listener.start()
  expect(listener.state).toBe('deaf')
  expect(seen.warnings).toHaveLength(1)
  swallowed = false
  await until(() => listener.proven, { deadlineMs: 5_000, label: 'it hears' })
})

test('a server that refuses LISTEN is asked again, and is never taken for one that is listened to', async () => {
  let asked = 0
  const refusal = (): Buffer => {
    asked += 1
    return failure('ERROR', 'XX000')
  }
  await using server = await fakeServer(loggedIn, refusal)
  const { listener, seen } = setup({ url: server.url, startMs: 0 })
  await listener.start()
  await until(() => asked === 3, { label: 'it asked three times' })
  expect(seen.gaps).toBe(0)
  expect(listener.state).toBe('connecting')
  await listener.stop()
  await until(() => server.open.size === 0, { label: 'nothing is left open' })
})

test('a blocked event loop is not taken for silence', async () => {
  let blocks = 0
  const { control, listener, seen } = setup({
    ...quick,
    probe: async (payload) => {
      void control.run(notify, [channel, payload])
      if (listener.proven && (blocks += 1) < 3) blockSoon(quick.probeDeadlineMs * 1.5)
    },
  })
  await listener.start()
  const before = await backends()
  await until(() => blocks > 3, { label: 'it went on probing after two blocks' })
  expect(await backends()).toEqual(before)
  expect(seen.states).toEqual(['connecting', 'proven'])
})

test('somebody who throws when told ends nothing', async () => {
  const thrower = (): never => {
    throw new Error('not mine')
  }
  const { listener } = setup({ onMessage: thrower, onGap: thrower, onChange: thrower })
  await listener.start()
  await send('one')
  await send('two')
  const [pid] = await backends()
  await database.query('SELECT pg_terminate_backend($1)', [pid])
  await until(async () => listener.proven && (await backends())[0] !== pid, { label: 'it listens again' })
})

test('a stop at any moment leaves no connection and no timer, and can be repeated', async () => {
  const { clock, live } = countingClock()
  const { listener } = setup({ clock })
  await listener.stop()
  const begun = listener.start()
  await listener.stop()
  await begun
  expect(live()).toBe(0)
  await listener.start()
  expect(listener.proven).toBe(true)
  await Promise.all([listener.stop(), listener.stop()])
  expect(listener.state).toBe('off')
  expect(live()).toBe(0)
  await until(async () => (await backends()).length === 0, {
    deadlineMs: 1_000,
    label: 'the backend is gone',
  })
})
