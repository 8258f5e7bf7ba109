import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { startProxy } from '../../src/testing/index.js'
import { until } from '../support/until.js'
import { dialAs, expectBacklog, muchData, serverHeard, setup } from './proxy-kit.js'
import { dial, request, startEcho, startupMessage } from './tcp.js'

describe('the proxy', () => {
  it('passes bytes both ways and counts them', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    client.send('hello')
    await client.hears('hello')
    expect(kit.proxy.connections()).toMatchObject([{ id: 1, bytesToServer: 5, bytesToClient: 5 }])
  })

  it('passes megabytes unchanged to a reader that is slow', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    const sent = Buffer.alloc(8 * 1024 * 1024, 'the quick brown fox ')
    client.socket.pause()
    client.send(sent)
    await until(() => (kit.server.lines[0]?.received().length ?? 0) > 0, {
      label: 'the server hears something',
    })
    client.socket.resume()
    await until(() => client.received().length >= sent.length, { label: 'all came back' })
    expect(client.received().equals(sent)).toBe(true)
  })

  it('does not take in more than a bounded amount when the server does not read', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    client.send('x')
    await client.hears('x')
    kit.server.lines[0]?.socket.pause()
    await expectBacklog(kit, client)
    expect(kit.proxy.connections()[0]?.bytesToServer).toBeLessThan(muchData.length)
  })

  it('passes the end of each side on and forgets the connection', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    client.send('last words')
    client.socket.end()
    await client.ends('end')
    await client.hears('last words')
    await until(() => kit.proxy.connections().length === 0, { label: 'the connection is forgotten' })
    expect(kit.server.lines).toMatchObject([{ end: 'end' }])
  })

  it('passes a reset on', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    client.send('x')
    await client.hears('x')
    client.socket.resetAndDestroy()
    await until(() => kit.server.lines[0]?.end === 'reset', { label: 'the server sees the reset' })
  })

  it('resets the client when the server cannot be reached', async () => {
    const server = await startEcho()
    await using proxy = await startProxy({ target: { host: '127.0.0.1', port: server.port } })
    await server[Symbol.asyncDispose]()
    const client = await dial(proxy.port)
    await client.ends('reset')
    await until(() => proxy.connections().length === 0, { label: 'the connection is forgotten' })
  })

  it.each([
    [
      'postgres://u:p@db.example:5432/shop?sslmode=disable',
      'postgres://u:p@127.0.0.1:PORT/shop?sslmode=disable',
    ],
    ['postgresql://u@db/shop?options=-c%20a%3Db', 'postgresql://u@127.0.0.1:PORT/shop?options=-c%20a%3Db'],
    ['postgres:///shop?host=/var/run/postgresql', 'postgres://127.0.0.1:PORT/shop'],
    ['postgres://u@[::1]/shop?port=5433', 'postgres://u@127.0.0.1:PORT/shop'],
  ])('leads %s through itself', async (before, after) => {
    await using kit = await setup()
    expect(kit.proxy.url(before)).toBe(after.replace('PORT', String(kit.proxy.port)))
  })

  it('leads new connections to another server, and leaves those that stand', async () => {
    await using kit = await setup()
    await using other = await startEcho(() => 'from the other')
    const old = await kit.dial()
    old.send('old')
    await old.hears('old')

    kit.proxy.retarget({ host: '127.0.0.1', port: other.port })
    const fresh = await kit.dial()
    fresh.send('fresh')
    await fresh.hears('from the other')
    old.send('er')
    await old.hears('older')
  })

  it('closes its port and its connections when it is stopped, and may be stopped again', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    await kit.proxy.stop()
    await client.ends('reset')
    await kit.proxy.stop()
    const [error] = await once(connect({ host: '127.0.0.1', port: kit.proxy.port }), 'error')
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
  })
})

describe('the name of a connection', () => {
  const startup = startupMessage({ user: 'ann', database: 'shop', application_name: 'forge:listen' })
  const named = {
    kind: 'session',
    applicationName: 'forge:listen',
    parameters: { user: 'ann', database: 'shop' },
  }

  it.each([
    ['a startup packet', [startup]],
    [
      'a startup packet that comes in pieces',
      [3, 7, 9, 30].map((at, i, cuts) => startup.subarray(cuts[i - 1] ?? 0, at)).concat(startup.subarray(30)),
    ],
    ['a startup packet after TLS was refused', [request(80_877_103), startup]],
    ['a startup packet after GSS and TLS were refused', [request(80_877_104), request(80_877_103), startup]],
    ['a startup packet with a query behind it', [Buffer.concat([startup, Buffer.from('Q')])]],
  ])('is read from %s', async (_, packets) => {
    await using kit = await setup()
    const client = await kit.dial()
    let sent = ''
    for (const packet of packets) {
      client.send(packet)
      sent += packet.toString('latin1')
      await client.hears(sent)
    }
    expect(kit.proxy.connections()).toMatchObject([named])
  })

  it.each([
    ['cancel', 'a cancel request', request(80_877_102, Buffer.alloc(8))],
    ['opaque', 'a TLS hello', Buffer.from('160301020001', 'hex')],
    ['opaque', 'TLS after it was granted', Buffer.concat([request(80_877_103), Buffer.from('1603', 'hex')])],
    ['opaque', 'another protocol', Buffer.from('GET / HTTP/1.1')],
    ['opaque', 'a packet that is too long to be one', Buffer.from('00ffffff00030000', 'hex')],
    ['opaque', 'protocol version 2', request(131_072, Buffer.alloc(288))],
    [
      'opaque',
      'encryption requests without end',
      Buffer.concat(Array<Buffer>(3_000).fill(request(80_877_103))),
    ],
    ['unknown', 'half a packet', startup.subarray(0, 12)],
  ])('is absent, and the kind is %s, for %s', async (kind, _, packet) => {
    await using kit = await setup()
    const client = await kit.dial()
    client.send(packet)
    await client.hears(packet.toString('latin1'))
    expect(kit.proxy.connections()).toMatchObject([{ kind, applicationName: undefined, parameters: {} }])
  })
})

describe('cut', () => {
  it('resets both sides of every connection, and new ones until heal', async () => {
    await using kit = await setup()
    const clients = await Promise.all([kit.dial(), kit.dial()])
    for (const client of clients) client.send('x')
    for (const client of clients) await client.hears('x')

    kit.proxy.cut()
    for (const client of clients) await client.ends('reset')
    await until(() => kit.server.lines.every(({ end }) => end === 'reset'), { label: 'the server sees it' })
    await (await kit.dial()).ends('reset')
    expect(kit.server.lines).toHaveLength(2)

    kit.proxy.heal()
    const after = await kit.dial()
    after.send('again')
    await after.hears('again')
  })

  it('can be had for one connection', async () => {
    await using kit = await setup()
    const [one, other] = [await dialAs(kit.proxy.port, 'one'), await dialAs(kit.proxy.port, 'other')]
    await one.hears(one.hello)
    await other.hears(other.hello)
    const target = kit.proxy.connections().find(({ applicationName }) => applicationName === 'one')
    target?.reset()
    await one.ends('reset')
    await target?.closed
    other.send('still here')
    await other.hears(`${other.hello}still here`)
  })
})

describe('latency', () => {
  it('delays each direction, keeps the order, and ends', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    client.send('1')
    await client.hears('1')

    kit.proxy.latency(60)
    const since = performance.now()
    client.send('2')
    await client.hears('12')
    // Timers may fire up to a millisecond early.
    expect(performance.now() - since).toBeGreaterThanOrEqual(118)

    client.send('3')
    await serverHeard(kit.server, '123')
    kit.proxy.latency(0)
    client.send('4')
    await client.hears('1234')
  })

  it('holds for new connections, and bounds what waits', async () => {
    await using kit = await setup()
    kit.proxy.latency(20)
    const client = await kit.dial()
    const sent = Buffer.alloc(3 * 1024 * 1024, 'abc')
    const since = performance.now()
    client.send(sent)
    await until(() => client.received().length >= sent.length, { label: 'all came back' })
    expect(client.received().equals(sent)).toBe(true)
    expect(performance.now() - since).toBeGreaterThanOrEqual(38)
  })
})
