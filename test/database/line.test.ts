import { Socket } from 'node:net'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { Line, type LineOptions } from '../../src/database/line.js'
import { ClientSource } from '../../src/database/source.js'
import { codeOf } from '../../src/kernel/index.js'
import { until } from '../support/until.js'
import { countingClock } from './counting-clock.js'
import { failure, type FakeServer, fakeServer, listening, loggedIn, notification } from './fake-server.js'

async function setup(
  answers: { login?: Buffer; listen?: Buffer },
  options: Partial<LineOptions> & Pick<pg.ClientConfig, 'stream'> = {},
) {
  const server = await fakeServer(answers.login ?? loggedIn, () => answers.listen ?? listening)
  const { stream, ...rest } = options
  const pool = new pg.Pool({ connectionString: server.url, ...(stream ? { stream } : {}) })
  const { clock, live } = countingClock()
  const payloads: string[] = []
  const line = new Line({
    source: new ClientSource(pool),
    clock,
    channel: 'forge_test',
    connectMs: 5_000,
    onPayload: (payload) => payloads.push(payload),
    ...rest,
  })
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]()
    await pool.end()
  })
  return { line, payloads, server, live }
}

async function nothingLeft({ server, live }: { server: FakeServer; live: () => number }): Promise<void> {
  await until(() => server.open.size === 0, { label: 'no socket is left' })
  expect(live()).toBe(0)
}

const failed = (line: Line): Promise<unknown> =>
  line.open().then(
    () => undefined,
    (error: unknown) => error,
  )

test('an open line hears, and its end says why', async () => {
  const listen = Buffer.concat([
    listening,
    notification('forge_test', 'one'),
    notification('forge_other', 'two'),
  ])
  const made = await setup({ listen })
  await made.line.open()
  await until(() => made.payloads.length === 1, { label: 'the payload is heard' })
  expect(made.payloads).toEqual(['one'])
  for (const socket of made.server.open) socket.write(failure('FATAL', '57P01'))
  await until(() => made.line.ended.aborted, { label: 'the end is noticed' })
  expect(codeOf(made.line.ended.reason)).toBe('57P01')
  await nothingLeft(made)
})

test.each([1, 2, 3, 20])('%i errors in one packet end the line and nothing else', async (count) => {
  const errors = Array.from({ length: count }, () => failure('FATAL', '57P01'))
  const made = await setup({ listen: Buffer.concat([listening, ...errors]) })
  await failed(made.line)
  await until(() => made.line.ended.aborted, { label: 'it has ended' })
  await nothingLeft(made)
})

test.each([
  { step: 'the login', answers: { login: failure('FATAL', '57P03') }, code: '57P03' },
  { step: 'LISTEN', answers: { listen: failure('ERROR', 'XX000') }, code: 'XX000' },
])('a refused $step is thrown as the server says it', async ({ answers, code }) => {
  const made = await setup(answers)
  expect(codeOf(await failed(made.line))).toBe(code)
  expect(made.line.ended.aborted).toBe(true)
  await nothingLeft(made)
})

test.each([
  { step: 'the login', answers: { login: Buffer.alloc(0) } },
  { step: 'LISTEN', answers: { listen: Buffer.alloc(0) } },
])('a server that does not answer $step costs the deadline, and the socket goes', async ({ answers }) => {
  const made = await setup(answers, { connectMs: 100 })
  expect(codeOf(await failed(made.line))).toBe('FORGE_DEADLINE')
  await nothingLeft(made)
})

test.each([
  { step: 'the login', answers: { login: Buffer.alloc(0) } },
  { step: 'LISTEN', answers: { listen: Buffer.alloc(0) } },
])('a line dropped before $step is answered does not open any more', async ({ answers }) => {
  const made = await setup(answers)
  const opening = failed(made.line)
  await until(() => made.server.open.size === 1, { label: 'it connects' })
  await made.line.close()
  expect(codeOf(await opening)).toBe('FORGE_CONNECTION_LOST')
  expect(codeOf(await failed(made.line))).toBe('FORGE_CONNECTION_LOST')
  await nothingLeft(made)
})

test('close says goodbye, and does not wait for ever for a server that does not take it', async () => {
  const made = await setup({})
  await made.line.open()
  const sinceMs = performance.now()
  await made.line.close()
  expect(performance.now() - sinceMs).toBeLessThan(2_000)
  expect(made.server.asked).toEqual(['Q', 'X'])
  await nothingLeft(made)
})

test('a stream of the host is used, and destroyed as well', async () => {
  const streams: Socket[] = []
  const stream = (): Socket => {
    const socket = new Socket()
    streams.push(socket)
    return socket
  }
  const made = await setup({}, { stream })
  await made.line.open()
  made.line.drop()
  expect(streams.map(({ destroyed }) => destroyed)).toEqual([true])
  await nothingLeft(made)
})
