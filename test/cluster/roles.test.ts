import { expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { startNode, stopNode } from '../chaos/nodes.js'

const database = useDatabase()
const options = { lease: { ms: 1_500, renewMs: 300 } }

it('FORGE_ROLES makes of one app a gateway, a worker and a scheduler, each of which does its own and nothing else', async () => {
  await using stack = new AsyncDisposableStack()
  const nodes = await Promise.all(
    ['gateway', 'worker', 'scheduler'].map((FORGE_ROLES) =>
      startNode(database.url, { options, quiet: true, ticks: true, env: { FORGE_ROLES } }),
    ),
  )
  for (const node of nodes) stack.use(node)
  const [gateway, worker, scheduler] = await Promise.all(
    nodes.map(async (node) => ((await node.ready()) as { node: string }).node),
  )
  await using watcher = await setup(database).attach({ ...options, roles: ['gateway'] })
  const seen = await watcher.cluster.nodes()
  const rolesOf = (id: string | undefined) => seen.find((node) => node.id === id)?.roles
  expect([gateway, worker, scheduler].map(rolesOf)).toEqual([['gateway'], ['worker'], ['scheduler']])
  await until(async () => (await watcher.crons.ticks('chaos.tick')).length >= 2, { label: 'two ticks' })
  expect((await watcher.cluster.leader('scheduler'))?.node).toBe(scheduler)
  const ran = await until(
    async () => {
      const jobs = await watcher.jobs.list({ name: 'chaos.tick', state: ['completed'] })
      return jobs.length >= 2 ? jobs : null
    },
    { label: 'two jobs' },
  )
  expect(new Set(ran?.map(({ node }) => node))).toEqual(new Set([worker]))
  const serves = (await watcher.cluster.nodes()).filter((node) => (node.serves?.names.length ?? 0) > 0)
  expect(serves.map(({ id }) => id)).toEqual([worker])
  expect(await Promise.all(nodes.map(stopNode))).toEqual([0, 0, 0])
})
