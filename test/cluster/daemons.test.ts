import { describe, expect, it } from 'vitest'
import { createForge, type DaemonContext } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()
const lease = { ms: 1_200, renewMs: 300 }
const options = { lease, roles: ['worker'] } as const

/** Runs until it is told to end. */
function watched() {
  const begun: DaemonContext[] = []
  let ended = 0
  return {
    begun,
    get running() {
      return begun.length - ended
    },
    run: (daemon: DaemonContext): Promise<void> => {
      begun.push(daemon)
      return new Promise((resolve) => {
        daemon.signal.addEventListener('abort', () => {
          ended += 1
          resolve()
        })
      })
    },
  }
}

describe('a daemon', () => {
  it('runs on one worker node, with its term, and on the next when that stops', async () => {
    const bundles = [setup(database), setup(database)] as const
    const seen = [watched(), watched()] as const
    bundles.forEach(({ forge }, at) => forge.daemon('solo', { run: (seen[at] as (typeof seen)[number]).run }))
    const first = await bundles[0].attach(options)
    await until(() => seen[0].running === 1, { label: 'runs' })
    await using second = await bundles[1].attach(options)
    expect(seen[0].begun[0]).toMatchObject({ name: 'solo', term: { n: 1 } })
    expect(await second.cluster.leader('daemon:solo')).toMatchObject({ node: first.id })
    expect(seen[1].begun).toEqual([])
    await first.stop()
    await until(() => seen[1].running === 1, { label: 'runs on the other' })
    expect(seen[0].running).toBe(0)
    expect(seen[1].begun[0]?.term?.n).toBe(2)
  })

  it('runs on each worker node when that is asked for, and ends with the node', async () => {
    const bundles = [setup(database), setup(database)] as const
    const seen = [watched(), watched()] as const
    bundles.forEach(({ forge }, at) =>
      forge.daemon('each', { everyNode: true, run: (seen[at] as (typeof seen)[number]).run }),
    )
    const nodes = await Promise.all(bundles.map(({ attach }) => attach(options)))
    expect(seen.map(({ running }) => running)).toEqual([1, 1])
    expect(seen[0].begun[0]?.term).toBeNull()
    for (const node of nodes) await node.stop()
    expect(seen.map(({ running, begun }) => [running, begun.length])).toEqual([
      [0, 1],
      [0, 1],
    ])
  })

  it.each([false, true])(
    'is called again when it returned, and when it threw (everyNode: %s)',
    async (everyNode) => {
      const { forge, attach, heard } = setup(database)
      const name = `again-${everyNode}`
      let calls = 0
      forge.daemon(name, {
        everyNode,
        run: () => {
          calls += 1
          if (calls === 2) throw new Error('on purpose')
        },
      })
      await using _node = await attach(options)
      await until(() => calls >= 3, { label: 'called again twice' })
      expect(heard.filter(({ message }) => message.includes('on purpose'))).toHaveLength(1)
    },
  )

  it('does not run on a node without the role worker', async () => {
    const { forge, attach } = setup(database)
    const { begun, run } = watched()
    forge.daemon('nowhere', { everyNode: true, run })
    await using _node = await attach({ ...options, roles: ['gateway'] })
    expect(begun).toEqual([])
  })

  it('is replaced by a later definition in development, after the old one has ended', async () => {
    const { forge, attach } = setup(database)
    const seen = [watched(), watched()] as const
    forge.daemon('hot', { run: seen[0].run })
    await using _node = await attach(options)
    await until(() => seen[0].running === 1, { label: 'runs' })
    forge.daemon('hot', { run: seen[1].run })
    await until(() => seen[1].running === 1, { label: 'the new one runs' })
    expect(seen[0].running).toBe(0)
  })

  it.each([
    ['no name', undefined, { run: () => {} }, 'FORGE_OPTION_INVALID'],
    ['a hostile name', `"; drop --`, { run: () => {} }, 'FORGE_OPTION_INVALID'],
    ['no run', 'x', {}, 'FORGE_OPTION_INVALID'],
    ['a wrong everyNode', 'x', { run: () => {}, everyNode: 'yes' }, 'FORGE_OPTION_INVALID'],
    ['an unknown option', 'x', { run: () => {}, everynode: true }, 'FORGE_OPTION_UNKNOWN'],
  ])('is refused with %s', (_name, name, given, code) => {
    expect(() => createForge().daemon(name as string, given as never)).toThrow(
      expect.objectContaining({ code }),
    )
  })
})
