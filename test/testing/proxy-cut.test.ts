import { describe, expect, it } from 'vitest'
import { until } from '../support/until.js'
import { dialAs, serverHeard, setup } from './proxy-kit.js'

describe('cutAfterBytes', () => {
  it('lets exactly so many bytes to the server, then resets the client', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', bytes: 7 })
    client.send('abc')
    await client.hears('abc')
    client.send('defghij')
    const connection = await cut.happened()
    await client.ends('reset')
    await connection.closed
    expect(kit.server.lines[0]?.received().toString()).toBe('abcdefg')
    expect(connection.bytesToServer).toBe(7)
  })

  it('cuts with the last byte, not with the one after it', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', bytes: 3 })
    client.send('abc')
    await cut.happened()
    await client.ends('reset')
  })

  it('lets exactly so many bytes to the client, then resets both sides', async () => {
    const answer = Buffer.alloc(4 * 1024 * 1024, 'abcdefghij')
    await using kit = await setup(() => answer)
    const client = await kit.dial()
    const cut = kit.proxy.cutAfterBytes({ direction: 'toClient', bytes: 20_004 })
    client.send('tell me all')
    expect(await cut.happened()).toMatchObject({ bytesToClient: 20_004 })
    await client.ends('reset')
    expect(client.count()).toBe(20_004)
    expect(client.received().equals(answer.subarray(0, 20_004))).toBe(true)
    await until(() => kit.server.lines[0]?.end === 'reset', { label: 'the server sees the reset' })
  })

  it('lets the server do what the match asks for and swallows the answer', async () => {
    await using kit = await setup((chunk) => `done ${chunk.length};`)
    const client = await kit.dial()
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', match: 'COMMIT' })
    client.send('INSERT')
    await client.hears('done 6;')

    client.send('COM')
    await serverHeard(kit.server, 'INSERTCOM')
    client.send('MIT\0')
    const connection = await cut.happened()
    await client.ends('reset')
    await connection.closed
    expect(client.received().toString()).not.toContain('done 4;')
    expect(kit.server.lines[0]).toMatchObject({ end: 'end' })
    expect(kit.server.lines[0]?.received().toString()).toBe('INSERTCOMMIT\0')
  })

  it('cuts inside the statement when no byte may follow the match', async () => {
    await using kit = await setup()
    const client = await kit.dial()
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', match: Buffer.from('COMMIT'), bytes: 0 })
    client.send('COMMIT\0')
    const connection = await cut.happened()
    await connection.closed
    expect(kit.server.lines[0]?.received().toString()).toBe('COMMIT')
  })

  it('finds the match wherever the packets are split', async () => {
    const text = 'aCCOCOMCOMMIT'
    for (let split = 1; split < text.length; split += 1) {
      await using kit = await setup()
      const client = await kit.dial()
      const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', match: 'COMMIT', bytes: 2 })
      client.send(text.slice(0, split))
      await client.hears(text.slice(0, split))
      client.send(`${text.slice(split)}1`)
      client.send('2345')
      const connection = await cut.happened()
      await connection.closed
      expect(kit.server.lines[0]?.received().toString()).toBe(`${text}12`)
    }
  })

  it('happens once, to the connection that it is meant for', async () => {
    await using kit = await setup()
    const [meant, other] = [await dialAs(kit.proxy.port, 'meant'), await dialAs(kit.proxy.port, 'other')]
    await meant.hears(meant.hello)
    await other.hears(other.hello)
    const only = ({ applicationName }: { applicationName: string | undefined }) => applicationName === 'meant'
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', match: 'COMMIT', only })
    other.send('COMMIT')
    await other.hears(`${other.hello}COMMIT`)

    meant.send('COMMIT')
    expect(await cut.happened()).toMatchObject({ applicationName: 'meant' })
    await meant.ends('reset')
    const again = await dialAs(kit.proxy.port, 'meant')
    again.send('COMMIT')
    await again.hears(`${again.hello}COMMIT`)
  })

  it('waits for connections that come later, and can be taken back', async () => {
    await using kit = await setup()
    const cancelled = kit.proxy.cutAfterBytes({ direction: 'toServer', match: 'COMMIT' })
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', match: 'ROLLBACK' })
    cancelled.cancel()
    const client = await kit.dial()
    client.send('COMMIT')
    await client.hears('COMMIT')
    client.send('ROLLBACK')
    await cut.happened()
    await client.ends('reset')
  })

  it('says what it waited for when it does not happen in time', async () => {
    await using kit = await setup()
    const cut = kit.proxy.cutAfterBytes({ direction: 'toServer', match: 'COMMIT' })
    await expect(cut.happened({ deadlineMs: 20 })).rejects.toMatchObject({
      code: 'FORGE_TEST_DEADLINE',
      message: expect.stringContaining('"COMMIT" toServer'),
    })
  })
})
