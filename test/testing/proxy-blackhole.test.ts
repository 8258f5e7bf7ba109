import { describe, expect, it } from 'vitest'
import { until } from '../support/until.js'
import { dialAs, expectBacklog, setup } from './proxy-kit.js'
import { dial } from './tcp.js'

describe('blackhole', () => {
  it('holds the chosen connection open and passes nothing, until resume delivers it', async () => {
    await using kit = await setup()
    const [held, free] = [
      await dialAs(kit.proxy.port, 'forge:listen'),
      await dialAs(kit.proxy.port, 'forge:work'),
    ]
    await held.hears(held.hello)
    await free.hears(free.hello)

    kit.proxy.blackhole({ only: ({ applicationName }) => applicationName === 'forge:listen' })
    held.send('a')
    free.send('b')
    await free.hears(`${free.hello}b`)
    held.send('c')
    expect(kit.server.lines.every((line) => !/[ac]$/.test(line.received().toString()))).toBe(true)
    expect(held).toMatchObject({ end: 'open' })

    kit.proxy.resume()
    await held.hears(`${held.hello}ac`)
  })

  it('takes in no more than a bounded amount', async () => {
    await using kit = await setup()
    const held = await dialAs(kit.proxy.port, 'held')
    await held.hears(held.hello)
    kit.proxy.blackhole({ only: ({ applicationName }) => applicationName === 'held' })
    await expectBacklog(kit, held)
  })

  it('passes nothing from the server either', async () => {
    await using kit = await setup()
    const [held, free] = [await dialAs(kit.proxy.port, 'held'), await dialAs(kit.proxy.port, 'free')]
    await held.hears(held.hello)
    await free.hears(free.hello)
    kit.proxy.blackhole({ only: ({ applicationName }) => applicationName === 'held' })
    kit.server.lines[0]?.socket.write('news')
    free.send('x')
    await free.hears(`${free.hello}x`)
    expect(held.received().toString('latin1')).toBe(held.hello)
    kit.proxy.resume()
    await held.hears(`${held.hello}news`)
  })

  it.each([
    ['end', (socket: { end(): void }) => socket.end()],
    ['reset', (socket: { resetAndDestroy(): void }) => socket.resetAndDestroy()],
  ] as const)('keeps the %s of a client back as well', async (how, leave) => {
    await using kit = await setup()
    const [held, free] = [await dialAs(kit.proxy.port, 'held'), await dialAs(kit.proxy.port, 'free')]
    await held.hears(held.hello)
    await free.hears(free.hello)
    kit.proxy.blackhole({ only: ({ applicationName }) => applicationName === 'held' })
    leave(held.socket)
    free.send('x')
    await free.hears(`${free.hello}x`)
    expect(kit.server.lines[0]).toMatchObject({ end: 'open' })
    expect(kit.proxy.connections()).toHaveLength(2)
    kit.proxy.resume()
    await until(() => kit.server.lines[0]?.end === how, { label: `the server sees ${how}` })
  })

  it('takes in new connections: they stand, and the server hears of them after resume', async () => {
    await using kit = await setup()
    kit.proxy.blackhole()
    const client = await kit.dial()
    client.send('anyone?')
    await until(() => kit.proxy.connections().length === 1, { label: 'the connection stands' })
    const direct = await dial(kit.server.port)
    direct.send('hello')
    await direct.hears('hello')
    expect(kit.server.lines).toHaveLength(1)
    kit.proxy.resume()
    await client.hears('anyone?')
  })

  it('judges a new connection by the name that it gives', async () => {
    await using kit = await setup()
    kit.proxy.blackhole({ only: ({ applicationName }) => applicationName !== 'forge:pulse' })
    const [pulse, work] = [
      await dialAs(kit.proxy.port, 'forge:pulse'),
      await dialAs(kit.proxy.port, 'forge:work'),
    ]
    await pulse.hears(pulse.hello)
    expect(work.received()).toHaveLength(0)
    kit.proxy.resume()
    await work.hears(work.hello)
  })

  it('is cut open by cut and stop', async () => {
    await using kit = await setup()
    kit.proxy.blackhole()
    const client = await kit.dial()
    await until(() => kit.proxy.connections().length === 1, { label: 'the connection stands' })
    kit.proxy.cut()
    await client.ends('reset')
    await until(() => kit.proxy.connections().length === 0, { label: 'the connection is forgotten' })
  })
})
