import { describe, expect, it } from 'vitest'
import type { Access } from '../../src/access/index.js'
import { hosts, hostStatus } from './hosts.js'
import { listen, routes, secret, type Raw } from './kit.js'

/** Ways to spell a way to the page; FORGE stands for the mount. */
// prettier-ignore
const shapes = [
  'FORGE', 'FORGE/', 'FORGE//', '/FORGE', '//FORGE/', '/.FORGE', '/x/..FORGE', 'FORGE/.', 'FORGE/..', 'FORGE/../forge',
  'FORGE/%2e', 'FORGE/%2e%2e/', 'FORGE%2f', 'FORGE%2F..', 'FORGE%5c', 'FORGE\\', '\\FORGE', 'FORGE;x', 'FORGE;x=1/',
  'FORGE/;', 'FORGE.', 'FORGE%00', 'FORGE%20', 'FORGE\t', 'FORGE?', 'FORGE??x', 'FORGE?/live', 'FORGE/?x=/ready', 'FORGE#',
  'FORGE#/live', 'FORGE/#/live', 'FORGE/live/..', 'FORGE/live/../', 'FORGE/live/%2e%2e', 'FORGE/live%2f..', 'FORGE/live;/',
  'FORGE/live%00', 'FORGE/ready/../status.css', 'FORGE/status.css', 'FORGE/STATUS.CSS', 'FORGE/status.css/',
  'FORGE/status.css/..', 'FORGE/status.css%00.html', 'FORGE/status.css.map', 'FORGE/..%2f..%2fetc/passwd', 'FORGE/.git/config',
  'FORGE/index.html', 'http://localhostFORGE', 'http://evil.exampleFORGE/', '*', 'FORGE/\u017ftatus.css', 'FORGE/live/x',
] as const

const spellings = (at: string): string[] => {
  const mixed = at.replace(/[a-z]/g, (letter, index: number) => (index % 2 ? letter : letter.toUpperCase()))
  const encoded = at.replace('o', '%6f').replace('f', '%66')
  const plain = shapes.map((shape) => shape.replace('FORGE', at))
  return [
    ...plain,
    ...[mixed, at.toUpperCase(), encoded].flatMap((mount) => [mount, `${mount}/`, `${mount}/status.css`]),
  ]
}

const isProbe = ({ body }: Raw) => /^\{"status":"(not )?ok"\}$/.test(body)
const hasData = ({ body }: Raw) => body.includes(secret) || body.includes('color-scheme')
const isOurs = ({ head }: Raw) => /frame-ancestors 'none'/.test(head)

describe.each(Object.entries(hosts))('on %s', (_, { at, make }) => {
  it('no spelling of the way reaches the data where the policy denies', async () => {
    let asked = 0
    const authorize = (): false => {
      asked += 1
      return false
    }
    await using wire = await listen(make(routes({ authorize })))
    for (const shape of spellings(at)) {
      const before = asked
      const answer = await wire.get(shape)
      expect(hasData(answer), shape).toBe(false)
      // Ours is the probe, or a denial that the policy spoke; else it is the host's, or Node's own refusal.
      const denied = isOurs(answer) && answer.status === 403 && asked === before + 1
      const probe = isOurs(answer) && isProbe(answer) && /\/(live|ready)/i.test(shape)
      const elsewhere = !isOurs(answer) && [hostStatus, 400, 404].includes(answer.status) && asked === before
      expect({ shape, denied, probe, elsewhere }).toMatchObject({
        shape,
        [denied ? 'denied' : probe ? 'probe' : 'elsewhere']: true,
      })
    }
  })

  it('no spelling of the way is answered with data unless the policy was asked about it', async () => {
    const seen: string[] = []
    const authorize = (req: { readonly url?: string | undefined }): Access => {
      seen.push(req.url ?? '')
      return 'read'
    }
    await using wire = await listen(make(routes({ authorize })))
    let data = 0
    for (const shape of spellings(at)) {
      const before = seen.length
      const answer = await wire.get(shape)
      if (!hasData(answer)) continue
      data += 1
      expect(answer.status, shape).toBe(200)
      expect(seen.length, shape).toBe(before + 1)
    }
    expect(data).toBeGreaterThan(4)
  })

  it('a long row of slashes takes no time to speak of', async () => {
    await using wire = await listen(make(routes({})))
    const since = performance.now()
    for (let round = 0; round < 20; round += 1) await wire.get(`${at}/${'/'.repeat(15_000)}x`)
    expect(performance.now() - since).toBeLessThan(1_500)
  })
})
