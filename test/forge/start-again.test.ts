import { expect, it } from 'vitest'
import type { Proxy } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { behindProxy, untilNothingIsLeft } from './kit.js'

const database = useDatabase()

async function setup() {
  const { forge, pool, logger, ...rest } = await behindProxy(database)
  const job = forge.job('again', { run: () => 'done' })
  return { ...rest, job, attach: () => forge.attach(null, pool, { logger, startTimeout: '2s' }) }
}

/** The next connection that sends this is reset in the middle of it. */
const cutAt = (proxy: Proxy, text: string) =>
  proxy.cutAfterBytes({ direction: 'toServer', match: Buffer.from(text), bytes: 0 })

it.each(['forge_join_node', 'forge_ensure_partitions', 'forge_save_definitions', 'forge_save_worker'])(
  'a start goes on when its connection breaks at %s',
  async (statement) => {
    const { proxy, before, heard, job, attach } = await setup()
    const cut = cutAt(proxy, statement)
    await using node = await attach()
    await cut.happened({ deadlineMs: 1_000 })
    expect(await (await job.enqueue(null)).result()).toBe('done')
    expect(heard.filter(({ level }) => level === 'error')).toEqual([])
    await node.stop()
    await proxy.stop()
    await untilNothingIsLeft(database, before)
  },
)

it('a start whose join was written and not answered takes it back, and joins anew', async () => {
  const { proxy, heard, job, attach } = await setup()
  const cut = proxy.cutAfterBytes({ direction: 'toClient', match: Buffer.from('INSERT 0 1'), bytes: 0 })
  await using node = await attach()
  await cut.happened({ deadlineMs: 1_000 })
  const nodes = await database.query<{ id: string }>('select id from forge.node')
  expect(nodes).toEqual([{ id: node.id }])
  expect(await (await job.enqueue(null)).result()).toBe('done')
  expect(heard.filter(({ level }) => level === 'error')).toEqual([])
})

it('a start whose connection breaks each time ends when its time is over, and leaves nothing', async () => {
  const { proxy, before, attach } = await setup()
  let tries = 0
  let over = false
  const cutting = (async () => {
    while (!over) {
      const cut = cutAt(proxy, 'forge_join_node')
      await cut.happened({ deadlineMs: 3_000 }).then(
        () => (tries += 1),
        () => {},
      )
    }
  })()
  await expect(attach()).rejects.toMatchObject({ code: 'FORGE_CONNECTION_LOST' })
  over = true
  await cutting
  // One every 250 ms and what it takes, for 2 s.
  expect(tries).toBeGreaterThan(1)
  await proxy.stop()
  await untilNothingIsLeft(database, before)
})
