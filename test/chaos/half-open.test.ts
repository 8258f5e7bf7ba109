import { expect, it } from 'vitest'
import { behindProxy } from '../forge/kit.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const jobs = 4_000

/*
 * One connection of a busy worker falls silent, as behind a firewall that forgot it: nothing is refused, and nothing is
 * answered. The others are whole. Its own deadline must notice, and no job may be lost meanwhile.
 */
it.each(['forge:work', 'forge:finish', 'forge:control', 'forge:listen', 'forge:pulse'])(
  `a worker whose connection %s is half-open finishes its work`,
  { timeout: 120_000 },
  async (name) => {
    const rig = await behindProxy(database)
    await using proxy = rig.proxy
    const ran = new Set<number>()
    const queue = name.replace(':', '.')
    rig.forge.job('half-open', { queue, run: (n: number) => void ran.add(n) })
    const producer = setup(database)
    const job = producer.forge.job('half-open', { queue, run: (_: number) => {} })
    await using gateway = await producer.attach({ roles: ['gateway'] })
    const lease = { ms: 3_000, renewMs: 600 }
    await using node = await rig.forge.attach(null, rig.pool, {
      logger: rig.logger,
      lease,
      queues: { [queue]: { concurrency: 50 } },
    })
    await job.enqueueMany(Array.from({ length: jobs }, (_, n) => n))
    const victims = await until(
      () => {
        const found = proxy.connections().filter(({ applicationName }) => applicationName === name)
        return ran.size > 100 && found.length > 0 ? found : null
      },
      { label: 'under way' },
    )
    proxy.blackhole({ only: (connection) => victims.includes(connection) })
    await job.enqueueMany(Array.from({ length: 50 }, (_, n) => jobs + n))
    const since = performance.now()
    await until(() => ran.size === jobs + 50, { label: 'all ran', deadlineMs: 60_000 })
    const left = async (): Promise<unknown> => (await database.query('select from forge.job limit 1'))[0]
    await until(async () => !(await left()), { label: 'all are handed in', deadlineMs: 60_000 })
    process.stdout.write(`half-open ${name}: all done after ${(performance.now() - since).toFixed(0)} ms\n`)
    await until(async () => (await node.health()).ready, { label: 'ready', deadlineMs: 30_000 })
    expect(await gateway.jobs.list({ state: 'discarded' })).toEqual([])
    proxy.resume()
  },
)
