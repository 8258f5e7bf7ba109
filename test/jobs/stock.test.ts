import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { randomFrom } from '../testing/random.js'
import { Frontier } from '../../src/jobs/frontier.js'
import type { Found } from '../../src/jobs/lane-state.js'
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

/** Lanes as the table holds them: the dues of their jobs. Reads as the statement does. */
class Table {
  readonly lanes = new Map<number, number[]>()
  readonly frontier = new Frontier()
  nowMs = 0
  /** What happens while a claim is under way. */
  meanwhile = (): void => {}

  constructor(lanes: readonly number[][]) {
    lanes.forEach((dues, id) =>
      this.lanes.set(
        id,
        dues.toSorted((a, b) => a - b),
      ),
    )
    this.frontier.serve(lanes.map((_, id) => ({ id, queue: 'q', name: `job ${id}` })))
  }

  get left(): number[] {
    return [...this.lanes.values()].flat()
  }

  add(id: number, due: number): void {
    this.lanes.set(
      id,
      [...this.#at(id), due].toSorted((a, b) => a - b),
    )
  }

  /** One claim: what it took. */
  claim(n: number): number[] {
    this.nowMs += 10
    this.frontier.sweep(this.nowMs)
    const plan = this.frontier.plan('q', n, this.nowMs)
    const { readings } = plan
    const found = new Map<number, Omit<Found, 'cut'>>()
    // It takes what there is, and does not say what comes next.
    const [only, second] = readings
    const oneLaneStatement = !second && only?.until === Number.POSITIVE_INFINITY
    expect(Math.max(...readings.map(({ reads }) => reads))).toBeLessThanOrEqual(n)
    let room = n
    const all = readings.flatMap((reading) => {
      const { id } = reading.lane
      const visible = this.#at(id).filter((due) => due >= (reading.from?.due ?? 0))
      const took = visible.filter((due) => due <= reading.until).slice(0, Math.min(reading.reads, room))
      room -= took.length
      const next = oneLaneStatement
        ? null
        : (visible.find((due) => due > reading.until || reading.reads === 0) ?? null)
      const last = took.at(-1)
      this.lanes.set(
        id,
        this.#at(id).filter((due) => !took.includes(due)),
      )
      found.set(id, {
        took: took.length,
        last: last === undefined ? null : position(last),
        next: next === null ? null : position(next),
      })
      return took
    })
    this.meanwhile()
    this.frontier.read(plan, found)
    return all
  }

  #at(id: number): number[] {
    return this.lanes.get(id) ?? []
  }
}

const position = (due: number) => ({ due, id: 'x' })

describe('many lanes of one queue', () => {
  it.each([
    ['all at once', 1, 100, 300],
    ['over an hour', 3_600, 100, 1_000],
    ['one deep, the others not', 600, 3, 300],
  ])(
    'are worked off in the order of urgency, nearly always exact to 3 s: %s',
    (_name, seconds, each, tripsMax) => {
      const random = randomFrom(7)
      const dues = (n: number) => numbers(n).map(() => 1_000 + random.fraction() * seconds)
      const table = new Table([dues(3_000), ...numbers(80).map(() => dues(each))])
      let total = table.left.length
      let trips = 0
      let late = 0
      for (; total > 0; trips++) {
        expect(trips).toBeLessThan(tripsMax)
        const took = table.claim(trips % 3 === 0 ? 2 : 100)
        total -= took.length
        const apart = Math.max(...took) - Math.min(...table.left)
        expect(apart).toBeLessThanOrEqual(60)
        if (apart > 3) late += 1
      }
      // When a lane is deeper than it was, once.
      expect(late).toBeLessThan(trips / 10)
      expect(table.left).toEqual([])
    },
  )

  it('come first when a more urgent job is announced, and soon when it is not', () => {
    const table = new Table(numbers(80).map((lane) => numbers(500).map((n) => 1_000 + n + lane / 100)))
    for (let trips = 0; trips < 20; trips++) table.claim(100)
    table.add(70, 900.5)
    table.frontier.wake([70], 900)
    expect(table.claim(10)).toContain(900.5)
    table.add(60, 901.5)
    let trips = 0
    while (!table.claim(10).includes(901.5)) expect((trips += 1)).toBeLessThan(40)
  })

  it('are worked off while wake-ups that name no place keep coming', () => {
    const table = new Table(numbers(150).map((lane) => numbers(20).map((n) => 1_000 + n + lane / 100)))
    let trips = 0
    for (; table.left.length > 0; trips++) {
      table.meanwhile = () => table.frontier.wake([0, 1, trips % 150], null)
      table.claim(100)
      expect(trips).toBeLessThan(200)
    }
  })

  it.each([
    [250, 500],
    [250, 1_000],
    [193, 1_000],
    [40, 500],
    [7, 500],
    [1, 100],
  ])('take hardly more trips than one lane, to the end: 200 of %i jobs, claims of %i', (each, n) => {
    const table = new Table(numbers(200).map(() => numbers(each).map((at) => 1_000 + at / each)))
    let trips = 0
    for (; table.left.length > 0; trips++) table.claim(n)
    expect(trips).toBeLessThanOrEqual((200 * each) / n + 4)
  })

  it('leave no room free for the sake of the order: what is less urgent fills it', () => {
    const table = new Table([[1_000], [1_300, 1_301, 1_302]])
    for (let trips = 0; table.left.length > 1; trips++) {
      expect(trips).toBeLessThan(6)
      table.claim(20)
      const due = 1_000 + trips / 100
      table.add(0, due)
      table.frontier.wake([0], Math.floor(due))
    }
    // Nor for announcements of what is not there.
    const misled = new Table([[], [1_300], [1_400]])
    for (let trips = 0; misled.left.length > 0; trips++) {
      expect(trips).toBeLessThan(8)
      misled.frontier.wake([0], 0)
      misled.claim(20)
    }
  })

  it.each([1, 10, 100])(
    'do not shrink claims of one that holds %i jobs to a second, while others wait',
    (perSecond) => {
      const table = new Table([numbers(20_000).map((n) => 1_000 + n / perSecond), [1e6]])
      let trips = 0
      for (; table.left.length > 1; trips++) table.claim(500)
      expect(trips).toBeLessThan(40 + 5)
    },
  )

  it('take a burst at once after they were idle, in its order', () => {
    const table = new Table([[1_000], [1_001]])
    for (let trips = 0; trips < 10; trips++) {
      for (const lane of [0, 1]) {
        table.add(lane, 1_010 + trips)
        table.frontier.wake([lane], 1_010 + trips)
      }
      table.claim(20)
    }
    while (table.left.length > 0) table.claim(20)
    for (const n of numbers(200)) {
      table.add(0, 1_100 + n / 1_000)
      table.add(1, 1_150 + n / 1_000)
    }
    table.frontier.wake([0], 1_100)
    table.frontier.wake([1], 1_150)
    const took = table.claim(200)
    expect(Math.max(...took)).toBeLessThan(1_101)
    expect(took).toHaveLength(200)
  })

  it('are looked at before they are read when nobody knows what is in them', () => {
    const table = new Table([numbers(50).map((n) => 30 + n / 100), numbers(50).map((n) => 600 + n / 100)])
    table.claim(10)
    expect(Math.max(...table.claim(10))).toBeLessThan(31)
  })

  it('are not forgotten when one is read alone as far as another begins', () => {
    const table = new Table([[200, 300], [900]])
    const took: number[] = []
    for (let trips = 0; table.frontier.hungry().size > 0; trips++) {
      expect(trips).toBeLessThan(20)
      took.push(...table.claim(1))
    }
    expect(took).toEqual([200, 300, 900])
  })

  it('are swept as seldom as a sweep takes long, however quick the claims between are', () => {
    const frontier = new Frontier()
    frontier.serve([{ id: 1, queue: 'q', name: 'job' }])
    const claim = (nowMs: number, tookMs: number, took: number): void => {
      const plan = frontier.plan('q', 10, nowMs)
      frontier.took(tookMs, [plan])
      frontier.read(plan, new Map([[1, { took, last: position(1_000), next: null }]]))
    }
    claim(0, 40, 10)
    claim(1, 1, 5)
    // 20 times 40 ms after the sweep, not 20 times 1 ms.
    expect(frontier.sweepInMs(1)).toBe(799)
  })

  it('are all empty in the end, and one that is announced is read at once', () => {
    const table = new Table([[1_000], [1_001], []])
    for (let trips = 0; table.frontier.hungry().size > 0; trips++) {
      table.claim(10)
      expect(trips).toBeLessThan(10)
    }
    table.add(2, 1_005)
    table.frontier.wake([2], 1_005)
    expect(table.claim(10)).toEqual([1_005])
  })
})
