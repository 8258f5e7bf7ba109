import { expect, test } from 'vitest'
import { useDatabase } from '../support/database.js'
import { forgeConnections, spawnFixture } from './kit.js'

const database = useDatabase()
const cycles = 100
/** Of the whole process; what V8 keeps for itself moves by tens of megabytes. */
const rssGrowthMbMax = 60
const heapGrowthMbMax = 10

interface Measured {
  readonly rssMb: number
  readonly heapMb: number
  readonly held: object
}

test(
  '100 times attach and stop, with a job each time, leave nothing behind',
  { timeout: 300_000 },
  async () => {
    await using child = spawnFixture('cycles', [String(cycles)], { DATABASE_URL: database.url })
    const ready = await child.ready({ deadlineMs: 280_000 })
    const { before, warm, after, seconds } = ready as Record<'before' | 'warm' | 'after', Measured> & {
      seconds: number
    }
    const left = await forgeConnections(database)
    const line = ({ rssMb, heapMb }: Measured) => `RSS ${rssMb} MB, heap ${heapMb} MB`
    console.log(
      `${cycles} cycles in ${seconds} s. After 1: ${line(before)}. After 10: ${line(warm)}. After all: ${line(after)}.\n` +
        `Held before and after: ${JSON.stringify(after.held)}. Connections of forge left: ${left.length}.`,
    )
    expect(left).toEqual([])
    expect(after.held).toEqual(before.held)
    expect(after.rssMb - warm.rssMb).toBeLessThan(rssGrowthMbMax)
    expect(after.heapMb - warm.heapMb).toBeLessThan(heapGrowthMbMax)
    expect(await database.query('SELECT FROM forge.node')).toEqual([])
    await child.send({ end: 'pool' })
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stderr).toBe('')
  },
)
