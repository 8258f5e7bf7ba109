import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { createDatabase, type TestDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { hasBrowser, openBrowser, openPage } from './browser.js'

const start = fileURLToPath(new URL('../../examples/storefront/demo/start.mjs', import.meta.url))

interface Demo {
  readonly child: ChildProcess
  readonly exited: Promise<unknown>
  output(): string
}

/** In a process group of its own, as a terminal would run it. */
function run(args: readonly string[], database: TestDatabase): Demo {
  const env = { ...process.env, DATABASE_URL: database.url, PORT: '0' }
  const child = spawn(process.execPath, [start, ...args], {
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void signalGroup(child, 'SIGKILL'))
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => (output += text))
  }
  return { child, exited: once(child, 'exit'), output: () => output }
}

/** What Ctrl-C does: every process of the group hears it. */
function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-(child.pid as number), signal)
  } catch {
    // Nobody is left in it.
  }
}

async function freshDatabase(): Promise<TestDatabase> {
  const database = await createDatabase({ migrated: false })
  onTestFinished(() => database.drop())
  return database
}

async function startDemo(database: TestDatabase) {
  const demo = run(['--quiet'], database)
  await until(() => demo.output().includes('Ctrl-C ends everything'), {
    label: 'the demo says where to look',
    deadlineMs: 40_000,
  }).catch((error: unknown) => {
    throw new Error(`The demo said:\n${demo.output()}`, { cause: error })
  })
  const text = demo.output()
  const url = /Storefront +(http:\S+)/.exec(text)?.[1] as string
  const pids = [...text.matchAll(/process (\d+)/g)].map((match) => Number(match[1]))
  expect(pids).toHaveLength(2)
  return { ...demo, url, pids }
}

function post(url: string, body: string): Promise<Response> {
  return fetch(`${url}/orders`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
}

async function stepsOf(url: string, id: string): Promise<Record<string, { state: string }>> {
  const response = await fetch(`${url}/orders/${id}`)
  return ((await response.json()) as { steps: Record<string, { state: string }> }).steps
}

function livingOf(pids: readonly number[]): number[] {
  return pids.filter((pid) => {
    try {
      process.kill(pid, 0)
      return true
    } catch {
      return false
    }
  })
}

test('the demo takes an order, runs its four jobs in the other process, and ends with Ctrl-C leaving nothing', async () => {
  const database = await freshDatabase()
  const demo = await startDemo(database)

  for (const [path, type] of Object.entries({ '': 'html', '/store.js': 'javascript', '/forge': 'html' })) {
    const page = await fetch(`${demo.url}${path}`)
    expect([page.status, page.headers.get('content-type')]).toEqual([200, expect.stringContaining(type)])
  }

  const response = await post(demo.url, '{"customer":"Ada","items":[{"productId":5,"quantity":2}]}')
  expect(response.status).toBe(201)
  const order = (await response.json()) as { id: string; totalCents: number }
  expect(order.totalCents).toBe(3_600)
  const done = { state: 'done' }
  await until(
    async () => Object.values(await stepsOf(demo.url, order.id)).every((step) => step.state === 'done'),
    { label: 'the four jobs are done', deadlineMs: 30_000 },
  )
  const steps = await stepsOf(demo.url, order.id)
  expect(steps).toMatchObject({ payment: done, stock: done, receipt: done, invoice: done })
  expect(await database.query('select order_id, amount_cents from storefront.payments')).toEqual([
    { order_id: order.id, amount_cents: 3_600 },
  ])

  signalGroup(demo.child, 'SIGINT')
  expect(await demo.exited).toEqual([0, null])
  expect(livingOf(demo.pids)).toEqual([])
})

test.skipIf(!hasBrowser)(
  'somebody puts a mug into the basket, orders, and sees the jobs done, live',
  async () => {
    const database = await freshDatabase()
    const demo = await startDemo(database)
    const browser = await openBrowser()
    onTestFinished(() => browser.close())
    const { page, complaints } = await openPage(browser, demo.url)
    await page
      .getByLabel(/Stoneware mug/)
      .last()
      .click()
    await page.getByRole('button', { name: /Place order/ }).click()
    const order = page.locator('.board', { hasText: 'Stoneware mug' })
    await order.getByText('done').nth(3).waitFor({ timeout: 30_000 })
    expect(await page.locator('#total-orders').textContent()).toBe('1')
    expect(complaints).toEqual([])
    signalGroup(demo.child, 'SIGINT')
    expect(await demo.exited).toEqual([0, null])
  },
)

test('an order that is not right is answered with 400 and writes nothing', async () => {
  const database = await freshDatabase()
  const demo = await startDemo(database)
  const item = '{"productId":1,"quantity":1}'
  for (const body of [
    '{"customer":"Ada","items":[]}',
    '{"customer":" ","items":[{"productId":1,"quantity":1}]}',
    '{"customer":"Ada","items":[{"productId":1,"quantity":0}]}',
    `{"customer":"Ada","items":[${item},${item}]}`,
    `{"customer":"Ada","items":[${item},{"productId":999,"quantity":1}]}`,
    '{"customer":"Ada\\u0000","items":[{"productId":1,"quantity":1}]}',
    '{"customer":"Ada","items":[{"productId":3000000000,"quantity":1}]}',
    'null',
    '{"customer',
  ]) {
    const response = await post(demo.url, body)
    expect([body, response.status, await response.json()]).toEqual([body, 400, { error: expect.any(String) }])
  }
  expect((await fetch(`${demo.url}/orders/1`)).status).toBe(404)
  expect(
    await database.query(
      `select (select count(*)::int from storefront.orders) as orders, (select count(*)::int from forge.job) as jobs`,
    ),
  ).toEqual([{ orders: 0, jobs: 0 }])

  // However the demo goes, its processes go too.
  demo.child.kill('SIGKILL')
  await until(() => livingOf(demo.pids).length === 0, { label: 'the processes of the demo are gone' })
})

test('the load run loses no job and does no effect twice when the worker is killed in the middle', async () => {
  const demo = run(['load', '--orders', '200'], await freshDatabase())
  const exit = await demo.exited
  expect(demo.output()).toMatch(/jobs lost +0 /)
  expect(demo.output()).toMatch(/jobs completed +800\n/)
  expect([exit, demo.output()]).toEqual([[0, null], expect.any(String)])
}, 120_000)
