import { type EventOf } from './history-events.js'

/** The time during which a token was the current one: from its claim up to, and not including, its end. */
interface Tenure {
  readonly token: string
  readonly node: string
  readonly from: number
  /** Infinity while nothing ended it. */
  readonly until: number
}

/** Two tokens of one job that were current at the same time. */
export interface Overlap {
  readonly job: string
  readonly tokens: readonly [string, string]
  readonly nodes: readonly [string, string]
  /** The first microsecond that they share. */
  readonly at: number
}

/** What ended a token: it was taken back, or its outcome was accepted. */
type TenureEnd = EventOf<'released'> | EventOf<'finalized'>

/** Of one job, in the order of the claims. */
export function tenuresOf(claims: readonly EventOf<'claimed'>[], ends: readonly TenureEnd[]): Tenure[] {
  const endsOf = groupBy(inOrder(ends), (end) => end.token)
  return inOrder(claims).map(({ token, node, at: from }) => {
    const own = endsOf.get(token) ?? []
    return { token, node, from, until: own[firstIndex(own, (end) => end.at >= from)]?.at ?? Infinity }
  })
}

/** Each tenure is held against the one before it that lasts longest: if any of them overlaps it, that one does. */
export function overlapsOf(job: string, tenures: readonly Tenure[]): Overlap[] {
  const overlaps: Overlap[] = []
  let holder: Tenure | undefined
  for (const next of tenures) {
    if (holder && next.from < holder.until) {
      overlaps.push({
        job,
        tokens: [holder.token, next.token],
        nodes: [holder.node, next.node],
        at: next.from,
      })
    }
    if (!holder || next.until > holder.until) holder = next
  }
  return overlaps
}

/** The accepted finalizations whose token was not the current one: never claimed, ended before, or overtaken by a claim. */
export function staleOf(
  accepted: readonly EventOf<'finalized'>[],
  tenures: readonly Tenure[],
): EventOf<'finalized'>[] {
  const placed = tenures.map((tenure, place) => ({ tenure, next: tenures[place + 1] }))
  const placesOf = groupBy(placed, ({ tenure }) => tenure.token)
  return accepted.filter(({ token, at }) => {
    const own = placesOf.get(token) ?? []
    const last = own[firstIndex(own, ({ tenure }) => tenure.from > at) - 1]
    if (last === undefined || at > last.tenure.until) return true
    return last.next !== undefined && last.next.from < at
  })
}

function groupBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>()
  for (const item of items) {
    const group = groups.get(keyOf(item))
    if (group) group.push(item)
    else groups.set(keyOf(item), [item])
  }
  return groups
}

function inOrder<Timed extends { readonly at: number }>(events: readonly Timed[]): Timed[] {
  return events.toSorted((a, b) => a.at - b.at)
}

/** Index of the first item that satisfies the condition, which all items behind it satisfy too; the length if none does. */
function firstIndex<Item>(items: readonly Item[], holds: (item: Item) => boolean): number {
  let [low, high] = [0, items.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    const item = items[middle]
    if (item !== undefined && holds(item)) high = middle
    else low = middle + 1
  }
  return low
}
