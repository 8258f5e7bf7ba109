import type { IncomingMessage } from 'node:http'
import express from 'express'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { type Authorize, decide, type Policy } from '../../src/access/index.js'
import { silentLogger } from '../../src/kernel/index.js'
import { serve } from '../forge/kit.js'
import { manualClock } from '../kernel/manual-clock.js'
import { useDatabase } from '../support/database.js'
import { listeningLogger, setup } from '../support/forge.js'

const database = useDatabase()

afterEach(() => vi.unstubAllEnvs())

function request(remoteAddress?: string, headers: Readonly<Record<string, string>> = {}): IncomingMessage {
  return { socket: { remoteAddress }, headers, url: '/', method: 'GET' } as unknown as IncomingMessage
}

const local = request('127.0.0.1', { host: 'localhost:3000' })
const foreign = request('203.0.113.9', { host: 'shop.example' })

/** What the policy of a host may come up with. */
const answers: Readonly<Record<string, () => unknown>> = {
  'says nothing': () => undefined,
  'says null': () => null,
  'says the empty text': () => '',
  'says false': () => false,
  'says true': () => true,
  'says 1': () => 1,
  "says 'admin'": () => 'admin',
  "says 'READ'": () => 'READ',
  "says 'read '": () => 'read ',
  "says ['read']": () => ['read'],
  'says an object of permissions': () => ({ read: true }),
  'says a String object': () => Object('read'),
  'says a function': () => () => 'read',
  'resolves to true': () => Promise.resolve(true),
  'resolves to nothing': async () => {},
  throws: () => {
    throw new Error('no user')
  },
  "throws 'read'": () => {
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    throw 'read'
  },
  rejects: () => Promise.reject(new Error('no session')),
  // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
  "rejects with 'operate'": () => Promise.reject('operate'),
  'answers a promise that throws when it is awaited': () => ({
    then: () => {
      throw new Error('hostile')
    },
  }),
}

const allowed: Readonly<Record<string, readonly [() => unknown, string]>> = {
  "says 'read'": [() => 'read', 'read'],
  "says 'operate'": [() => 'operate', 'operate'],
  "resolves to 'read'": [() => Promise.resolve('read'), 'read'],
  "resolves to 'operate'": [async () => 'operate', 'operate'],
}

function policy(authorize: (() => unknown) | null, given: Partial<Policy> = {}): Policy {
  const base = { development: false, clock: manualClock().clock, log: silentLogger }
  return { ...base, authorize: authorize as Authorize | null, ...given }
}

describe('a policy that', () => {
  it.each(Object.entries(answers))('%s denies, in development too', async (_, authorize) => {
    for (const development of [false, true]) {
      expect(await decide(local, policy(authorize, { development }))).toBe('denied')
      expect(await decide(foreign, policy(authorize, { development }))).toBe('denied')
    }
  })

  it.each(Object.entries(allowed))('%s allows that, whoever asks', async (_, [authorize, access]) => {
    expect(await decide(local, policy(authorize))).toBe(access)
    expect(await decide(foreign, policy(authorize))).toBe(access)
  })

  it('hangs is given five seconds, and then the check counts as unavailable', async () => {
    const { clock, advance, pending } = manualClock()
    const { logger, heard } = listeningLogger()
    let answer = (_: string): void => {}
    const late = new Promise<string>((resolve) => (answer = resolve))
    let decision = ''
    const deciding = decide(
      foreign,
      policy(() => late, { clock, log: logger }),
    ).then((what) => (decision = what))
    advance(4_999)
    await Promise.resolve()
    expect(decision).toBe('')
    advance(1)
    await deciding
    expect(decision).toBe('unavailable')
    answer('operate')
    await late
    expect(decision).toBe('unavailable')
    expect(pending()).toBe(0)
    expect(heard).toMatchObject([
      { level: 'warn', message: expect.stringContaining('no answer within 5000 ms') as string },
    ])
  })

  it('throws is told about, once for each request', async () => {
    const { logger, heard } = listeningLogger()
    const failing = policy(answers.throws as () => unknown, { log: logger })
    await decide(local, failing)
    await decide(local, failing)
    expect(heard.map(({ message }) => message)).toEqual(
      Array(2).fill('forge: dashboard.authorize failed, the request is denied: no user'),
    )
  })

  it('gets the request, and its answer leaves no timer', async () => {
    const { clock, pending } = manualClock()
    const seen: unknown[] = []
    const authorize = (req: IncomingMessage) => void seen.push(req)
    await decide(foreign, policy(authorize as () => unknown, { clock }))
    expect(seen).toEqual([foreign])
    expect(pending()).toBe(0)
  })
})

describe('without a policy', () => {
  const inDevelopment = (req: IncomingMessage) => decide(req, policy(null, { development: true }))

  it('nobody is let in outside development', async () => {
    for (const req of [local, foreign, request('::1', { host: '[::1]' })]) {
      expect(await decide(req, policy(null))).toBe('denied')
    }
  })

  it.each(['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1'])(
    'the peer %s is let in while developing',
    async (peer) => {
      for (const host of [
        'localhost',
        'localhost:3000',
        'LOCALHOST:80',
        '127.0.0.1:65535',
        '[::1]',
        '[::1]:3000',
      ]) {
        expect(await inDevelopment(request(peer, { host }))).toBe('operate')
      }
    },
  )

  it.each([
    '10.0.0.7',
    '192.168.1.2',
    '172.17.0.1',
    '203.0.113.9',
    '::2',
    'fe80::1',
    '::ffff:10.0.0.1',
    '1.127.0.0.1',
    '',
    undefined,
  ])('the peer %s is not', async (peer) => {
    expect(await inDevelopment(request(peer, { host: 'localhost' }))).toBe('denied')
  })

  it.each([
    'evil.example',
    'localhost.evil.example',
    'evil.example:80',
    'localhost@evil.example',
    '127.0.0.1.nip.io',
    '0.0.0.0',
    '127.1',
    '2130706433',
    'localhost:',
    'localhost:123456',
    'localhost:3000\n',
    'xlocalhost',
    'localhost.',
    '[::ffff:127.0.0.1]',
    '',
  ])('the Host %j is not', async (host) => {
    expect(await inDevelopment(request('127.0.0.1', { host }))).toBe('denied')
  })

  it('a request without a Host is not', async () => {
    expect(await inDevelopment(request('127.0.0.1'))).toBe('denied')
  })

  it.each([
    'forwarded',
    'via',
    'x-forwarded-for',
    'x-forwarded-host',
    'x-forwarded-proto',
    'x-forwarded-port',
    'x-forwarded-prefix',
    'x-forwarded-server',
    'x-forwarded',
    'x-real-ip',
    'x-client-ip',
    'x-cluster-client-ip',
    'client-ip',
    'true-client-ip',
    'x-original-host',
    'x-original-url',
    'cf-connecting-ip',
    'cf-ray',
    'fly-client-ip',
    'fastly-client-ip',
  ])('what a proxy brought, as %s shows, is not', async (header) => {
    for (const value of ['127.0.0.1', 'localhost', '']) {
      expect(await inDevelopment(request('127.0.0.1', { host: 'localhost', [header]: value }))).toBe('denied')
    }
  })

  it('ordinary headers of a browser do no harm', async () => {
    const headers = {
      host: 'localhost',
      'user-agent': 'x',
      accept: '*/*',
      'sec-fetch-site': 'none',
      cookie: 'a=b',
      origin: 'null',
    }
    expect(await inDevelopment(request('127.0.0.1', headers))).toBe('operate')
  })
})

describe('an attached node', () => {
  it.each([
    ['production', 403],
    ['staging', 403],
    ['', 403],
    ['development', 200],
    ['test', 200],
  ])('with NODE_ENV %j and no policy answers the loopback with %i', async (env, status) => {
    vi.stubEnv('NODE_ENV', env || undefined)
    const { forge, pool } = setup(database)
    const app = express().set('trust proxy', true)
    await using node = await forge.attach(app, pool)
    await using site = await serve(app)
    for (const path of ['/forge', '/forge/status.css', '/FORGE/']) {
      expect((await site.ask(path, { headers: { host: 'localhost' } })).status).toBe(status)
      const spoofed = { host: 'localhost', 'x-forwarded-for': '127.0.0.1' }
      expect((await site.ask(path, { headers: spoofed })).status).toBe(403)
      expect((await site.ask(path, { headers: { host: 'evil.example' } })).status).toBe(403)
    }
    for (const probe of ['/forge/live', '/forge/ready']) {
      expect(await site.ask(probe, { headers: { host: 'evil.example' } })).toMatchObject({
        status: 200,
        body: '{"status":"ok"}',
      })
    }
    await node.stop()
  })
})
