import { isSpanContextValid, ROOT_CONTEXT, SpanStatusCode, trace } from '@opentelemetry/api'
import pg from 'pg'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { envName, isSpec, type OptionTable, resolveOptions } from '../../src/kernel/index.js'
import { optionTable } from '../../src/options.js'
import { createRuntime, isDevelopment } from '../../src/runtime/index.js'
import { statement } from '../../src/database/index.js'
import { forgeConnections } from '../forge/kit.js'
import { useDatabase } from '../support/database.js'
import { listeningLogger, setup } from '../support/forge.js'

const database = useDatabase()
const one = statement<{ one: number }>('forge_test_one', () => 'select 1 as one')

afterEach(() => vi.unstubAllEnvs())

function runtimeOf(pool: pg.Pool, logger: object | false = false) {
  return createRuntime(pool, resolveOptions(optionTable, { logger }, {}))
}

describe('a runtime', () => {
  it('connects when it is used, once for each purpose, and not at all after close', async () => {
    const pool = database.pool()
    const { runtime, close } = runtimeOf(pool)
    expect(await forgeConnections(database)).toEqual([])
    await Promise.all(Array.from({ length: 5 }, () => runtime.db.control.run(one)))
    expect(await forgeConnections(database)).toEqual(['forge:control'])
    await runtime.db.reader.run(one)
    const own = runtime.db.open('errand')
    await own.run(one)
    expect(await forgeConnections(database)).toEqual(['forge:control', 'forge:errand', 'forge:reader'])
    await close()
    // What was opened for somebody is closed by that somebody.
    expect(await forgeConnections(database)).toEqual(['forge:errand'])
    await own.close()
    expect(await forgeConnections(database)).toEqual([])
    await expect(runtime.db.control.run(one)).rejects.toMatchObject({ code: 'FORGE_STOPPED' })
    expect(pool.totalCount).toBe(0)
  })

  it('cannot be changed, and is another node each time', () => {
    const [first, second] = [runtimeOf(database.pool()), runtimeOf(database.pool())]
    expect(first.runtime.nodeId).not.toBe(second.runtime.nodeId)
    for (const part of [first.runtime, first.runtime.db, first.runtime.config])
      expect(part).toSatisfy(Object.isFrozen)
  })

  it('tells of a listener of news that throws, and goes on', () => {
    const { logger, heard } = listeningLogger()
    const { runtime } = runtimeOf(database.pool(), logger)
    const heardNews: number[] = []
    runtime.news.on({ name: 'test.news' }, () => {
      throw new Error('a bug of the listener')
    })
    runtime.news.on<number>({ name: 'test.news' }, (n) => heardNews.push(n))
    runtime.news.emit({ name: 'test.news' }, 7)
    expect(heardNews).toEqual([7])
    expect(heard).toMatchObject([
      { level: 'warn', message: 'forge: a listener of test.news threw: a bug of the listener' },
    ])
  })

  it('has spans that do nothing until somebody records them', () => {
    const span = runtimeOf(database.pool()).runtime.span('work')
    expect(span.isRecording()).toBe(false)
    expect(isSpanContextValid(span.spanContext())).toBe(false)
    expect(trace.getSpan(trace.setSpan(ROOT_CONTEXT, span))).toBe(span)
    span.setAttribute('a', 1).setAttributes({ b: 2 }).addEvent('c').addLink({ context: span.spanContext() })
    span.addLinks([]).setStatus({ code: SpanStatusCode.ERROR }).updateName('other').recordException('failed')
    span.end()
  })

  it('is made of a pool of another copy of pg, too, and of nothing else', () => {
    class OtherPool {
      readonly options = { host: 'localhost' }
      readonly Client = pg.Client
      connect() {}
    }
    expect(runtimeOf(new OtherPool() as unknown as pg.Pool).runtime.db.source.custom).toBe(false)
    for (const none of [null, 'postgres://x', {}, new pg.Client(), { options: {}, connect() {} }]) {
      expect(() => runtimeOf(none as never)).toThrow(/attach\(\) needs a pg.Pool/)
    }
  })
})

describe('development', () => {
  it.each([
    ['development', true],
    ['test', true],
    ['production', false],
    ['Development', false],
    ['dev', false],
    ['', false],
    [undefined, false],
  ])('with NODE_ENV %j is %j', (env, expected) => {
    vi.stubEnv('NODE_ENV', env)
    expect(isDevelopment()).toBe(expected)
  })
})

describe('the environment', () => {
  /** What each option reads of its variable. */
  const texts: Readonly<Record<string, readonly [string, unknown]>> = {
    roles: ['worker, scheduler', ['worker', 'scheduler']],
    schema: ['jobs', 'jobs'],
    migrate: ['check', 'check'],
    capabilities: ['media,gpu', ['media', 'gpu']],
    signals: ['true', true],
    startTimeout: ['5s', 5_000],
    stopTimeout: ['250', 250],
    'lease.ms': ['6s', 6_000],
    'lease.renewMs': ['500ms', 500],
    concurrency: ['3', 3],
    queues: [
      '{"mail":{"concurrency":2},"*":false}',
      new Map<string, unknown>([
        ['mail', { concurrency: 2, weight: 1 }],
        ['*', false],
      ]),
    ],
    'retention.completed': ['1d', 86_400_000],
    'retention.discarded': ['2d', 172_800_000],
    'dashboard.title': ['Shop', 'Shop'],
    path: ['/ops', '/ops'],
  }

  const readable = (table: OptionTable, prefix = ''): string[] =>
    Object.entries(table).flatMap(([key, entry]) => {
      if (!isSpec(entry)) return readable(entry, `${prefix}${key}.`)
      return entry.fromText ? [prefix + key] : []
    })

  const at = (resolved: unknown, path: string) =>
    path.split('.').reduce((value, key) => (value as Record<string, unknown>)[key], resolved)

  it('has a variable for every option that text can say', () => {
    expect(Object.keys(texts).sort()).toEqual(readable(optionTable).sort())
  })

  it.each(Object.entries(texts))('says %s where the options do not', (path, [text, value]) => {
    const env = { [envName(path)]: text }
    expect(at(resolveOptions(optionTable, undefined, env), path)).toEqual(value)
  })

  it.each(Object.keys(texts))(
    'is told off by the name of its variable when it says nonsense about %s',
    (path) => {
      // Any text is a title, unless it is too long.
      const env = { [envName(path)]: '\0nonsense'.repeat(20) }
      const refused = () => resolveOptions(optionTable, undefined, env)
      expect(refused).toThrow(new RegExp(`Environment variable ${envName(path)}`))
    },
  )

  it('decides the roles of a node, and is outdone by what attach is given', async () => {
    vi.stubEnv('FORGE_ROLES', 'gateway')
    vi.stubEnv('FORGE_PATH', 'nonsense')
    const { attach } = setup(database)
    await using node = await attach({ path: '/ops' })
    expect(node.roles).toEqual(['gateway'])
    await node.stop()
    await expect(attach({ roles: ['worker'] })).rejects.toMatchObject({
      code: 'FORGE_OPTION_INVALID',
      message: expect.stringMatching(/^Environment variable FORGE_PATH must be a path/) as string,
    })
  })
})
