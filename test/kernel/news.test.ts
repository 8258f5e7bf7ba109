import { expect, test } from 'vitest'
import { createNewsDesk, LocalSignals, news } from '../../src/kernel/index.js'

const counted = news<{ n: number }>('test.counted')
const other = news<{ n: number }>('test.other')

function setup() {
  const faults: [unknown, string][] = []
  const heard: string[] = []
  const desk = createNewsDesk((error, name) => faults.push([error, name]))
  const hear = (who: string) => (payload: { n: number }) => void heard.push(`${who} ${payload.n}`)
  return { desk, faults, heard, hear }
}

test('news reaches all who listen for it, in the order in which they came, and nobody else', () => {
  const { desk, heard, hear } = setup()
  desk.on(counted, hear('one'))
  desk.on(counted, hear('two'))
  desk.on(other, hear('stranger'))
  desk.emit(counted, { n: 1 })
  expect(heard).toEqual(['one 1', 'two 1'])
})

test('a subscription ends when told, also from inside its own listener', () => {
  const { desk, heard, hear } = setup()
  const off = desk.on(counted, (payload) => {
    hear('once')(payload)
    off()
  })
  desk.on(counted, hear('always'))
  desk.emit(counted, { n: 1 })
  desk.emit(counted, { n: 2 })
  off()
  expect(heard).toEqual(['once 1', 'always 1', 'always 2'])
})

test('a listener that throws is reported, and disturbs neither the sender nor its neighbours', () => {
  const { desk, faults, heard, hear } = setup()
  const fault = new Error('fault')
  desk.on(counted, () => {
    throw fault
  })
  desk.on(counted, hear('neighbour'))
  expect(() => desk.emit(counted, { n: 1 })).not.toThrow()
  expect(heard).toEqual(['neighbour 1'])
  expect(faults).toEqual([[fault, 'test.counted']])
})

test('news that nobody wants is no fault', () => {
  const { desk, faults } = setup()
  desk.emit(counted, { n: 1 })
  expect(faults).toEqual([])
})

test('hints inside one process reach the listeners of their topic; a gap reaches all', () => {
  const signals = new LocalSignals()
  const heard: unknown[] = []
  const off = signals.subscribe('ready', (keys) => heard.push(['ready', keys]))
  signals.subscribe('cancel', (keys) => heard.push(['cancel', keys]))
  signals.hint('ready', 'a')
  signals.hint('unknown', 'b')
  signals.deliver('cancel', ['x', 'y'])
  signals.deliverGap()
  off()
  signals.hint('ready', 'c')
  expect(heard).toEqual([
    ['ready', ['a']],
    ['cancel', ['x', 'y']],
    ['ready', null],
    ['cancel', null],
  ])
})
