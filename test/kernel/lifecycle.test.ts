import { expect, test } from 'vitest'
import { type Service, startAll, stopAll } from '../../src/kernel/index.js'

function setup(faults: Readonly<Record<string, Error>> = {}) {
  const calls: string[] = []
  const call = async (what: string): Promise<void> => {
    calls.push(what)
    const fault = faults[what]
    if (fault) throw fault
  }
  const services = ['a', 'b', 'c'].map((name): Service => ({
    name,
    start: () => call(`start ${name}`),
    stop: (deadlineMs) => call(`stop ${name}${deadlineMs === undefined ? '' : ` within ${deadlineMs}`}`),
  }))
  return { services, calls }
}

test('services start one after the other and stop in reverse, each told the deadline', async () => {
  const { services, calls } = setup()
  await startAll(services)
  expect(await stopAll(services, 500)).toBeUndefined()
  expect(calls).toEqual([
    ...['start a', 'start b', 'start c'],
    ...['stop c within 500', 'stop b within 500', 'stop a within 500'],
  ])
})

test('a start that fails stops itself and what was started, in reverse, starts nothing more and is thrown', async () => {
  const fault = new Error('b did not start')
  const { services, calls } = setup({ 'start b': fault })
  await expect(startAll(services)).rejects.toBe(fault)
  expect(calls).toEqual(['start a', 'start b', 'stop b', 'stop a'])
})

test('a stop that fails keeps no other from stopping; the first failure is returned', async () => {
  const [first, second] = [new Error('c'), new Error('b')]
  const { services, calls } = setup({ 'stop c': first, 'stop b': second })
  expect(await stopAll(services)).toBe(first)
  expect(calls).toEqual(['stop c', 'stop b', 'stop a'])
})

test('a failed start is thrown, also when stopping fails then', async () => {
  const fault = new Error('c did not start')
  const { services, calls } = setup({ 'start c': fault, 'stop b': new Error('b') })
  await expect(startAll(services)).rejects.toBe(fault)
  expect(calls.slice(3)).toEqual(['stop c', 'stop b', 'stop a'])
})

test('a service that throws at once, outside any promise, counts as one that failed', async () => {
  const { services, calls } = setup()
  const rude: Service = {
    name: 'rude',
    start: () => {
      throw new Error('rude start')
    },
    stop: () => {
      throw new Error('rude stop')
    },
  }
  await expect(startAll([...services, rude])).rejects.toThrow('rude start')
  expect(calls.slice(3)).toEqual(['stop c', 'stop b', 'stop a'])
})
