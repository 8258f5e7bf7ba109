import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { Frontier } from '../../src/jobs/frontier.js'
import { Roster } from '../../src/jobs/roster.js'
import type { JobRun } from '../../src/jobs/run.js'
import { Shelf } from '../../src/jobs/shelf.js'

const run = (id: number): JobRun => ({ id: String(id), queue: 'q', place: -1 }) as unknown as JobRun
const numbers = (n: number): number[] => Array.from({ length: n }, (_, index) => index)

describe('the roster', () => {
  it('holds what came and has not left, whoever leaves', () => {
    const roster = new Roster()
    const here = new Map(numbers(200).map((id) => [String(id), run(id)]))
    for (const each of here.values()) roster.add(each)
    const leave = (id: number): void => {
      const each = here.get(String(id)) as JobRun
      roster.remove(each)
      roster.remove(each)
      here.delete(String(id))
      expect(new Set(roster.all())).toEqual(new Set(here.values()))
    }
    for (const id of numbers(200).filter((n) => n % 3 !== 1)) leave((id * 7) % 200)
    expect(roster.size).toBe(here.size)
    expect(roster.find(['1', 'nobody', ...here.keys()]).map(({ id }) => id)).toHaveLength(here.size)
  })

  it('may lose some while somebody goes through all', () => {
    const roster = new Roster()
    for (const id of numbers(10)) roster.add(run(id))
    const met = roster.all().map((each) => (roster.remove(each), each.id))
    expect(met).toHaveLength(10)
    expect(roster.size).toBe(0)
  })
})

describe('the shelf', () => {
  it('gives jobs in their order, and what is left after some were removed', () => {
    const shelf = new Shelf()
    for (const id of numbers(700)) shelf.put(run(id))
    const taken = numbers(600).map(() => shelf.take('q')?.id)
    expect(taken).toEqual(numbers(600).map(String))
    expect(shelf.remove(({ id }) => Number(id) % 2 === 0)).toHaveLength(50)
    expect([shelf.count('q'), shelf.take('q')?.id, shelf.take('q')?.id]).toEqual([50, '601', '603'])
  })

  it('does not keep what was taken although it is never empty', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const shelf = new Shelf()
    shelf.put(run(0))
    const first = new WeakRef(run(1))
    shelf.put(first.deref() as JobRun)
    for (const id of numbers(1_000)) {
      shelf.put(run(id + 2))
      shelf.take('q')
    }
    // What a WeakRef gave is held until the end of this turn.
    return new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      collect()
      expect(shelf.count('q')).toBe(2)
      expect(first.deref()).toBeUndefined()
    })
  })
})

describe('many lanes of one queue', () => {
  it('are all read in each claim, since any of them may hold the most urgent job', () => {
    const frontier = new Frontier()
    frontier.serve(numbers(100).map((id) => ({ id, queue: 'q', name: `job ${id}` })))
    for (const n of [20, 500]) {
      const { readings } = frontier.plan('q', n, 0)
      expect(readings).toHaveLength(100)
      for (const reading of readings) frontier.read(reading, false, { due: 1_000 + reading.lane.id, id: 'x' })
    }
  })
})
