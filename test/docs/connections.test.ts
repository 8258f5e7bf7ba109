import { describe, expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { codeOf, page, tableRows } from './pages.js'

const database = useDatabase()
const rows = tableRows(page('docs/connections.md'), 'How many')
const documented = rows
  .flatMap(([cell]) => (cell ?? '').split(', ').map(codeOf))
  .filter((name) => name !== '')
const numbers = rows.filter(([, count]) => /^\d+$/.test(count ?? '')).map((row) => row.slice(1).map(Number))

async function open(): Promise<string[]> {
  const found = await database.query<{ name: string }>(
    `select application_name as name from pg_stat_activity
     where datname = current_database() and application_name like 'forge:%'`,
  )
  return found.map(({ name }) => name).sort()
}

describe('the page about connections', () => {
  it('has the connections of a node without the role worker, and of one with it', async () => {
    const [gateway, worker] = numbers
    const idle = setup(database)
    await using _node = await idle.attach({ roles: ['gateway'] })
    expect(await open()).toEqual(['forge:control', 'forge:listen', 'forge:pulse'])
    expect(await open()).toHaveLength(gateway?.[0] as number)
    await _node.jobs.counts()
    expect(await open()).toHaveLength(gateway?.[1] as number)
    await _node.stop()
    await until(async () => (await open()).length === 0, { label: 'nothing of the node is left' })

    const { forge, attach } = setup(database)
    const job = forge.job('connections.work', { run: () => 1 })
    await using node = await attach({ roles: ['worker'] })
    await (await job.enqueue()).result()
    const [low, looking] = worker as [number, number]
    const opened = await open()
    // One more when the completion met a claim under way: then it goes by a connection of its own.
    const more = opened.includes('forge:finish') ? 1 : 0
    expect(opened).toHaveLength(low + more)
    await node.jobs.counts()
    const all = await open()
    expect(all).toHaveLength(looking + more)
    expect(all.filter((name) => !documented.includes(name))).toEqual([])
  })
})
