import { describe, expect, it } from 'vitest'
import type { NodeProcess } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { forgeConnections, shutGate, spawnFixture } from './kit.js'

const database = useDatabase()

function start(task: string, env: Readonly<Record<string, string>> = {}): NodeProcess {
  return spawnFixture('guest', [task], { DATABASE_URL: database.url, ...env })
}

const hasIds = (message: unknown): message is { ids: { id: string }[] } => 'ids' in (message as object)

/** The moment from which on the sessions of a child count: the server may notice the end of an earlier one late. */
const now = async () => (await database.query<{ at: Date }>('select clock_timestamp() as at'))[0]?.at

/** Says what a session that stays is doing. */
const nothingIsLeft = (since: Date | undefined) =>
  until(
    async () => {
      const left = await database.query(
        `SELECT application_name, state, wait_event_type, wait_event, left(query, 200) AS query, now() - query_start AS since
           FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'forge:%' AND backend_start > $1`,
        [since],
      )
      if (left.length > 0) throw new Error(JSON.stringify(left))
      return true
    },
    { label: 'no connection is left' },
  )

const countOf = (text: string, part: string) => text.split(part).length - 1

describe('a process with forge in it', () => {
  it('prints nothing, and has the listeners of before, while it attached and afterwards', async () => {
    await using child = start('quiet')
    const { before, ...seen } = (await child.ready()) as Record<string, unknown>
    expect(seen).toMatchObject({ result: 2, during: before, after: before })
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout + child.stderr).toBe('')
  })

  it('ends by itself after a failed attach that nobody awaited, with one warning and no unhandled rejection', async () => {
    await using child = start('careless', { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nowhere' })
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toBe('')
    expect(countOf(child.stderr, 'forge did not start')).toBe(1)
    expect(child.stderr).toMatch(/\[FORGE_DATABASE_UNREACHABLE\] ForgeWarning: forge did not start: /)
    expect(child.stderr).not.toMatch(/unhandled|Error:/i)
  })

  it('stays alive as a worker with no other handle, and dies of SIGTERM as it would without forge', async () => {
    const since = await now()
    await using child = start('worker')
    await child.ready()
    await until(() => child.stderr !== '', { label: 'it says that nobody heeds SIGTERM' })
    expect(countOf(child.stderr, 'this worker has no SIGTERM listener')).toBe(1)
    expect(await forgeConnections(database)).not.toEqual([])
    child.kill('SIGTERM')
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' })
    await nothingIsLeft(since)
  })

  it('stays alive while PostgreSQL is away, from before the start on', async () => {
    await using gate = await shutGate(database)
    await using child = start('worker', { DATABASE_URL: gate.url })
    // Its first tries have failed, so it has no connection, and nothing else that is open.
    await until(() => gate.refused > 2, { label: 'it tries to connect' })
    gate.open()
    await child.ready()
  })

  it('learns of a failed start, although nothing else keeps it alive', async () => {
    const env = { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nowhere', FORGE_START_TIMEOUT: '300ms' }
    await using child = start('worker', env)
    expect(await child.exited).toEqual({ code: 1, signal: null })
    expect(child.stderr).toMatch(/ForgeError: .*ECONNREFUSED/)
  })

  it('is not told off when it adds its SIGTERM listener right after attach', async () => {
    await using child = start('heedful')
    await child.ready()
    await using witness = start('worker')
    await witness.ready()
    await until(() => witness.stderr !== '', { label: 'a later process has been told off' })
    expect(child.stderr).toBe('')
    child.kill('SIGTERM')
    expect(await child.exited).toEqual({ code: 0, signal: null })
  })

  it('with signals: true lets jobs finish, hands back the rest, and dies of the signal', async () => {
    const since = await now()
    await using child = start('signals')
    await child.ready()
    const { ids } = await child.waitForMessage(hasIds)
    child.kill('SIGTERM')
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' })
    await nothingIsLeft(since)
    expect(child.stderr).toBe('')
    await using node = await setup(database).attach({ roles: ['gateway'] })
    const [short, long] = await Promise.all(ids.map(({ id }) => node.jobs.get(id)))
    expect(short).toMatchObject({ state: 'completed', result: 'finished' })
    expect(long).toMatchObject({ state: 'available', attempt: 0 })
  })
})
