import { describe, expect, it } from 'vitest'
import type { QueueOption } from '../../src/jobs/options.js'
import { type QueueState, Slots } from '../../src/jobs/slots.js'

const said = (states: Record<string, Partial<QueueState>>) =>
  new Map(
    Object.entries(states).map(([queue, state]) => [
      queue,
      { paused: false, scale: null, limit: null, ...state },
    ]),
  )

describe('the slots of a process', () => {
  it('are those of the queue option, else of the one for all others, else of option concurrency', () => {
    const slots = new Slots(new Map([['mail', { concurrency: 3, weight: 7 }]]), 10)
    expect([slots.size('mail'), slots.size('other')]).toEqual([3, 10])
    expect([slots.weight('mail'), slots.weight('other')]).toEqual([7, 1])
    const rest = new Slots(
      new Map([
        ['mail', { weight: 2 }],
        ['*', { concurrency: 4, weight: 5 }],
      ]),
      10,
    )
    expect([rest.size('mail'), rest.size('other'), rest.weight('other')]).toEqual([10, 4, 5])
    const few = new Slots(
      new Map<string, QueueOption>([
        ['mail', { concurrency: 3, weight: 1 }],
        ['*', false],
      ]),
      10,
    )
    expect([few.serves('mail'), few.serves('other'), few.size('other')]).toEqual([true, false, 0])
  })

  it('are free until they are taken, and none is while the queue is paused', () => {
    const slots = new Slots(new Map(), 2)
    slots.take('mail')
    expect(slots.free('mail')).toBe(1)
    slots.apply(said({ mail: { paused: true } }))
    expect([slots.free('mail'), slots.isPaused('mail'), slots.serves('mail'), slots.size('mail')]).toEqual([
      0,
      true,
      true,
      2,
    ])
    slots.apply(new Map())
    slots.release('mail')
    expect(slots.free('mail')).toBe(2)
  })

  it('follow the scale, also down below what runs', () => {
    const slots = new Slots(new Map([['left', false as const]]), 5)
    for (let i = 0; i < 4; i++) slots.take('mail')
    slots.apply(said({ mail: { scale: 2 }, left: { scale: 9 } }))
    expect([slots.size('mail'), slots.free('mail')]).toEqual([2, 0])
    expect([slots.size('left'), slots.serves('left')]).toEqual([0, false])
    slots.apply(said({ mail: { scale: 20 } }))
    expect(slots.free('mail')).toBe(16)
  })

  it('tell of the queues that changed, and of no others', () => {
    const slots = new Slots(new Map(), 5)
    const heard: (readonly string[])[] = []
    const off = slots.onChange((queues) => heard.push(queues))
    slots.apply(said({ a: { paused: true }, b: { limit: 4 } }))
    slots.apply(said({ a: { paused: true }, b: { limit: 4 } }))
    slots.apply(said({ b: { limit: 5 } }))
    slots.apply(said({ b: { limit: 5 }, c: {} }))
    off()
    slots.apply(new Map())
    expect(heard).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ])
    expect(slots.isLimited('b')).toBe(false)
  })
})
