/*
 * The demo: a database, a web process and a worker process, and an order every two seconds. A process that dies is
 * started again, so that killing one shows what becomes of its jobs.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { orderSomething } from './customers.ts'
import { openDatabase } from './database.ts'
import { onStage } from './ending.ts'
import { Kept } from './kept.ts'

const orderEveryMs = 2_000

const { values: options } = parseArgs({ options: { quiet: { type: 'boolean', default: false } } })

await onStage(async (stage, ending) => {
  const database = await openDatabase(stage)
  ending.throwIfAborted()
  const env = { DATABASE_URL: database.url, PORT: process.env.PORT ?? '' }
  // Ended in the opposite order: first no more orders, then no more work, then the database.
  const worker = stage.use(new Kept('worker', env))
  const web = stage.use(new Kept('web', env))
  const [{ port }] = await Promise.all([web.start(), worker.start()])
  const url = `http://127.0.0.1:${port}`
  console.log(`
  Storefront   ${url}
  forge        ${url}/forge

  web          process ${web.pid}
  worker       process ${worker.pid}; kill -9 it, and another one takes its jobs over
  database     ${database.about}

  ${options.quiet ? 'Orders are yours to place.' : 'An order comes in every two seconds (--quiet: none).'} Ctrl-C ends everything.
`)
  if (!options.quiet) void trickle(url, ending)
  await Promise.race([web.failed, worker.failed])
})

async function trickle(url: string, ending: AbortSignal): Promise<void> {
  while (!ending.aborted) {
    // The web process may be between two lives.
    await orderSomething(url).catch(() => {})
    await pause(orderEveryMs, undefined, { signal: ending }).catch(() => {})
  }
}
