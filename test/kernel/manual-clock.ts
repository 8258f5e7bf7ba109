import type { Clock } from '../../src/kernel/index.js'

/** A clock that stands until it is moved. */
export function manualClock(): { readonly clock: Clock; advance(ms: number): void; pending(): number } {
  let now = 0
  const timers = new Set<{ readonly atMs: number; readonly fire: () => void }>()
  const clock: Clock = {
    monotonicMs: () => now,
    wallMs: () => now,
    timer(ms, fire) {
      const timer = { atMs: now + ms, fire }
      timers.add(timer)
      return { cancel: () => void timers.delete(timer) }
    },
  }
  const advance = (ms: number): void => {
    now += ms
    const due = [...timers].filter(({ atMs }) => atMs <= now).sort((a, b) => a.atMs - b.atMs)
    for (const timer of due) if (timers.delete(timer)) timer.fire()
  }
  return { clock, advance, pending: () => timers.size }
}
