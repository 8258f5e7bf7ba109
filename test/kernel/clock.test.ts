import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { systemClock } from '../../src/kernel/index.js'

const day = 86_400_000

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('fires a timer of a month after a month, not at once and not at the limit of setTimeout', () => {
  const fired = vi.fn()
  systemClock.timer(30 * day, fired)
  vi.advanceTimersByTime(29.9 * day)
  expect(fired).not.toHaveBeenCalled()
  vi.advanceTimersByTime(0.2 * day)
  expect(fired).toHaveBeenCalledTimes(1)
})

it('can cancel a long timer in any stage', () => {
  const fired = vi.fn()
  const timer = systemClock.timer(60 * day, fired)
  vi.advanceTimersByTime(30 * day)
  timer.cancel()
  vi.advanceTimersByTime(60 * day)
  expect(fired).not.toHaveBeenCalled()
})
