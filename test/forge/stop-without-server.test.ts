import { expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { behindProxy, untilNothingIsLeft } from './kit.js'

const database = useDatabase()

/** A running handler is given `stopTimeout`; the rest is deadlines of connections, some of them one after another. */
const stopTimeout = 500
const stopMsMax = 20_000

it.each(['cut', 'blackhole'] as const)(
  'stop ends while PostgreSQL is away (%s), and leaves nothing in this process',
  async (fault) => {
    const { proxy, pool, logger, heard, before, forge } = await behindProxy(database)
    let running = false
    const job = forge.job(`away.${fault}`, {
      run: (_: unknown, context) =>
        new Promise((_resolve, reject) => {
          running = true
          context.signal.addEventListener('abort', reject)
        }),
    })
    const node = await forge.attach(null, pool, { logger, stopTimeout })
    await job.enqueue(null)
    await until(() => running, { label: 'the job runs' })
    proxy[fault]()
    const since = performance.now()
    await Promise.all([node.stop(), node.stop()])
    const ms = Math.round(performance.now() - since)
    console.log(`Stop without a server (${fault}) took ${ms} ms.`)
    expect(ms).toBeLessThan(stopMsMax)
    expect(heard.filter(({ level }) => level === 'error')).toEqual([])
    await proxy.stop()
    await untilNothingIsLeft(database, before)
  },
)
