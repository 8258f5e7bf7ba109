import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { call, forge, unread, urlWith } from './command.js'

const database = useDatabase({ migrated: false })
const secret = 'pw-7731'

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

describe('a database that cannot be reached', () => {
  it.each(['migrate', 'status', 'doctor'])(
    'ends %s with 3 and what to do: login refused',
    async (command) => {
      const url = urlWith(database.url, { username: 'forge_nobody', password: secret })
      const ended = await forge([command, '--database-url', url])
      expect(ended.code).toBe(3)
      expect(ended.stdout + ended.stderr).toMatch(/Check user, password and pg_hba\.conf\./)
      expect(ended.stdout + ended.stderr).not.toContain(secret)
    },
  )

  it('no such database', async () => {
    const url = urlWith(database.url, { pathname: '/forge_no_such_database' })
    const ended = await forge(['status', '--json'], { DATABASE_URL: url })
    expect(ended).toMatchObject({ code: 3, stderr: '' })
    expect(JSON.parse(ended.stdout)).toMatchObject({ ok: false, error: { code: 'FORGE_DATABASE_MISSING' } })
  })

  it('the server is down', async () => {
    const server = createServer()
    const port = await listening(server)
    await new Promise((resolve) => server.close(resolve))
    const url = `postgres://app:${secret}@127.0.0.1:${port}/shop`
    const ended = await forge(['migrate'], { DATABASE_URL: url })
    expect(ended).toMatchObject({ code: 3, stdout: '' })
    expect(ended.stderr).toContain(`ECONNREFUSED 127.0.0.1:${port}`)
    expect(ended.stderr).toContain('Check host, port and that the server runs.')
    const doctor = await forge(['doctor', '--json'], { DATABASE_URL: url })
    expect(doctor).toMatchObject({ code: 3, stderr: '' })
    expect(JSON.parse(doctor.stdout)).toMatchObject({
      ok: false,
      checks: [{ name: 'connection', state: 'fail' }],
    })
    expect(ended.stderr + doctor.stdout).not.toContain(secret)
  })

  it('something answers that never says a word, or is no PostgreSQL', async () => {
    const sockets = new Set<Socket>()
    const silent = createServer((socket) => void sockets.add(socket))
    const web = createServer((socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    for (const server of [silent, web]) {
      const { code, stderr } = await call([
        'status',
        '--database-url',
        `postgres://a@127.0.0.1:${await listening(server)}/b`,
      ])
      expect({ code, stderr }).toMatchObject({
        code: 3,
        stderr: expect.stringContaining('FORGE_DATABASE_UNREACHABLE'),
      })
    }
    for (const socket of sockets) socket.destroy()
    for (const server of [silent, web]) server.close()
  })
})

describe('a connection string', () => {
  it.each([
    'nonsense',
    '127.0.0.1:5432/shop',
    `mysql://app:${secret}@host/shop`,
    `postgres://app:${secret}@host:port/shop`,
    `postgres://app:${secret}@host:99999/shop`,
    `postgres://app:${secret}/${secret}@host/shop`,
    `postgres://app:1/${secret}@127.0.0.1:1/shop`,
    `postgres://app:${secret}?${secret}@host/shop`,
    `postgres://app:1#${secret}@127.0.0.1:1/shop`,
    `postgres:// app:${secret}@[::1`,
    `${secret}`,
  ])('that is malformed ends with 2, says the right form and shows nothing of itself: %s', async (url) => {
    for (const flags of [[], ['--json']]) {
      const { code, stdout, stderr } = await call(['doctor', '--database-url', url, ...flags])
      expect(code).toBe(2)
      expect(stdout + stderr).toContain('postgres://user:password@host:5432/database')
      expect(stdout + stderr).not.toContain(secret)
    }
  })

  it.each([
    `postgres://app:${secret}@127.0.0.1:1/shop`,
    `postgres://app:${secret}%40%2F@127.0.0.1:1/shop`,
    `postgres://app:${secret}%@127.0.0.1:1/shop`,
    `postgres://app:${secret}@${secret}@127.0.0.1:1/shop`,
    `postgresql://app@127.0.0.1:1/shop?password=${secret}`,
    `postgres://127.0.0.1:1/shop?user=app&password=${secret}`,
  ])('that is well formed never shows its password: %s', async (url) => {
    for (const command of ['migrate', 'status', 'doctor']) {
      const { code, stdout, stderr } = await call([command, '--database-url', url])
      expect(code).toBe(3)
      expect(stdout + stderr).not.toContain(secret)
    }
  })
})

describe('--json', () => {
  it.each([
    [['--help'], 0],
    [['--version'], 0],
    [[], 2],
    [['stauts'], 2],
    [['status', '--oops'], 2],
    [['status'], 2],
    [['status', '--database-url', 'nonsense'], 2],
    [['migrate', '--database-url', 'postgres://a@127.0.0.1:1/b'], 3],
    [['doctor', '--database-url', 'postgres://a@127.0.0.1:1/b'], 3],
  ])('makes one document of whatever happens, and nothing beside it: %j', async (args, exit) => {
    const { code, stdout, stderr } = await forge([...args, '--json'])
    expect({ code, stderr }).toEqual({ code: exit, stderr: '' })
    expect(JSON.parse(stdout)).toMatchObject({ ok: exit === 0 })
  })

  it('does not mind a reader that goes away', async () => {
    expect(await unread(['--help', '--json'])).toEqual({ code: 0, stderr: '' })
    expect(await unread(['stauts', '--json'])).toEqual({ code: 2, stderr: '' })
  })
})

describe('--help', () => {
  it('names every command, every option and every exit code', async () => {
    const { code, stdout } = await forge(['--help'])
    expect(code).toBe(0)
    for (const word of [
      'migrate',
      'status',
      'doctor',
      'jobs',
      '--database-url',
      '--schema',
      '--json',
      '--version',
    ])
      expect(stdout).toContain(word)
    for (const exit of [0, 1, 2, 3]) expect(stdout).toMatch(new RegExp(`^  ${exit}  \\S`, 'm'))
  })
})
