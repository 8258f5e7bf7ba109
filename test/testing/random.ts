import { randomInt } from 'node:crypto'

/** Numbers that a seed decides, so that a failure can be repeated. */
export interface Random {
  /** From 0, below 1. */
  fraction(): number
  /** From `low` to `high`, both included. */
  int(low: number, high: number): number
  chance(probability: number): boolean
  pick<Item>(items: readonly Item[]): Item
  shuffle<Item>(items: readonly Item[]): Item[]
}

/** FORGE_TEST_SEED repeats a failed run; else each run tries other histories. */
export function firstSeed(): number {
  return Number(process.env['FORGE_TEST_SEED'] ?? randomInt(2 ** 31))
}

/** mulberry32: small, and good enough to choose test cases. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (low: number, high: number): number => low + Math.floor(fraction() * (high - low + 1))
  const pick = <Item>(items: readonly Item[]): Item => {
    if (items.length === 0) throw new Error('nothing to pick from')
    return items[int(0, items.length - 1)] as Item
  }
  return {
    fraction,
    int,
    pick,
    chance: (probability) => fraction() < probability,
    shuffle: (items) => {
      const keyed = items.map((item) => ({ item, key: fraction() }))
      return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item)
    },
  }
}
