import { setImmediate as turn } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { deferred, sleep, systemClock, unlessAborted, within } from '../../src/kernel/index.js'
import { manualClock } from './manual-clock.js'

const late = (): Error => new Error('late')

/** What Node would end the process for. */
function unhandledRejections(): unknown[] {
  const seen: unknown[] = []
  const note = (reason: unknown): void => void seen.push(reason)
  process.on('unhandledRejection', note)
  onTestFinished(() => void process.off('unhandledRejection', note))
  return seen
}

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending')
  await turn()
  return (await Promise.race([promise.catch(() => {}), Promise.resolve(pending)])) !== pending
}

test('a sleep ends when its time has passed, and not before', async () => {
  const { clock, advance } = manualClock()
  const sleeping = sleep(clock, 100)
  advance(99)
  expect(await isSettled(sleeping)).toBe(false)
  advance(1)
  await sleeping
})

test('an abort wakes a sleeper, which rejects nothing and leaves no timer', async () => {
  const { clock, pending } = manualClock()
  const stop = new AbortController()
  const sleeping = sleep(clock, 1e9, stop.signal)
  stop.abort(new Error('stop'))
  await expect(sleeping).resolves.toBeUndefined()
  await expect(sleep(clock, 1e9, stop.signal)).resolves.toBeUndefined()
  expect(pending()).toBe(0)
})

test('sleepers leave no listener on their signal', async () => {
  const { clock, advance } = manualClock()
  const { signal } = new AbortController()
  let listeners = 0
  signal.addEventListener = () => void (listeners += 1)
  signal.removeEventListener = () => void (listeners -= 1)
  const sleeping = Array.from({ length: 5 }, () => sleep(clock, 10, signal))
  expect(listeners).toBe(5)
  advance(10)
  await Promise.all(sleeping)
  expect(listeners).toBe(0)
})

test('within gives what the promise gives, and takes its timer back', async () => {
  const { clock, pending } = manualClock()
  await expect(within(Promise.resolve(7), { clock, ms: 100, late })).resolves.toBe(7)
  const fault = new Error('fault')
  await expect(within(Promise.reject(fault), { clock, ms: 100, late })).rejects.toBe(fault)
  await turn()
  expect(pending()).toBe(0)
})

test('within rejects at the deadline, and what the promise does later is ignored', async () => {
  const unhandled = unhandledRejections()
  const { clock, advance } = manualClock()
  const slow = deferred<void>()
  const answer = within(slow.promise, { clock, ms: 100, late })
  advance(100)
  await expect(answer).rejects.toThrow('late')
  slow.reject(new Error('later still'))
  await turn()
  expect(unhandled).toEqual([])
})

test('unlessAborted gives what the promise gives while nothing aborts', async () => {
  const { signal } = new AbortController()
  await expect(unlessAborted(signal, Promise.resolve(7))).resolves.toBe(7)
  const fault = new Error('fault')
  await expect(unlessAborted(signal, Promise.reject(fault))).rejects.toBe(fault)
})

test('unlessAborted rejects with the reason, and what the promise does later is ignored', async () => {
  const unhandled = unhandledRejections()
  const stop = new AbortController()
  const reason = new Error('stop')
  const slow = deferred<void>()
  const answer = unlessAborted(stop.signal, slow.promise)
  stop.abort(reason)
  await expect(answer).rejects.toBe(reason)
  slow.reject(new Error('later'))
  // The same for a signal that has aborted before.
  await expect(unlessAborted(stop.signal, Promise.reject(new Error('later')))).rejects.toBe(reason)
  await turn()
  expect(unhandled).toEqual([])
})

test('the clock of the system rises, and its timers fire once, can be cancelled, and do not overflow', async () => {
  const before = systemClock.monotonicMs()
  const fired: string[] = []
  systemClock.timer(0, () => fired.push('cancelled')).cancel()
  const endless = systemClock.timer(1e12, () => fired.push('overflow'))
  await new Promise<void>((resolve) => void systemClock.timer(5, resolve))
  endless.cancel()
  expect(fired).toEqual([])
  expect(systemClock.monotonicMs() - before).toBeGreaterThanOrEqual(4)
  expect(Math.abs(systemClock.wallMs() - Date.now())).toBeLessThan(1_000)
})
