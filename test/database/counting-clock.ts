import { type Clock, systemClock } from '../../src/kernel/index.js'

/** A clock that knows how many of its timers are neither fired nor cancelled. */
export function countingClock(): { clock: Clock; live: () => number } {
  const timers = new Set<object>()
  const timer: Clock['timer'] = (ms, fire) => {
    const made = systemClock.timer(ms, () => {
      timers.delete(made)
      fire()
    })
    timers.add(made)
    return {
      cancel() {
        timers.delete(made)
        made.cancel()
      },
    }
  }
  return { clock: { ...systemClock, timer }, live: () => timers.size }
}
