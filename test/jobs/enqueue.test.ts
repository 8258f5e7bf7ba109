import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

const database = useDatabase()

describe('enqueue', () => {
  it('sends calls that are made together in few statements, each with an answer of its own', async () => {
    const { forge, attach, pool } = setup(database)
    const job = forge.job('together', { queue: 'together', run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    await job.enqueue({ i: -1 })
    const before = await commits()
    const handles = await Promise.all(Array.from({ length: 300 }, (_, i) => job.enqueue({ i })))
    const spent = (await commits()) - before
    expect(new Set(handles.map((handle) => handle.id)).size).toBe(300)
    const { rows } = await pool.query<{ id: string; i: number }>(
      `select id, (input ->> 'i')::int as i from forge.job where input ->> 'i' <> '-1'`,
    )
    const stored = new Map(rows.map((row) => [row.id, row.i]))
    expect(handles.map((handle) => stored.get(handle.id))).toEqual(handles.map((_, i) => i))
    // 2 inserts, their hints, the pulse and this question; one commit per call would be 300.
    expect(spent).toBeLessThan(60)
  })

  it('tells other nodes of a single job in the same breath, and where it stands', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('announced', { queue: 'announced', run: () => null })
    await using _node = await attach({ roles: ['gateway'] })
    // The lane is made by the first; of a priority, the first has none before it to guess its due by.
    await job.enqueue({})
    const { order, told } = watchQueries()
    const rode = async (): Promise<boolean> => {
      order.length = 0
      const { id } = await job.enqueue({})
      const [row] = await database.query<{ key: string }>(
        `select lane || '@' || floor(extract(epoch from due)) as key from forge.job where id = $1`,
        [id],
      )
      return order.join() === 'insert,notify,answered' && told().includes(`["${row?.key}"]`)
    }
    // Not so when the last hint went out less than 5 ms ago, nor where a second begins in between.
    for (let i = 0; i < 5; i++) await until(rode, { label: 'a hint behind the job, with its due' })
  })

  it('makes no second job when a call is repeated with its id, whether the first waits, runs or is done', async () => {
    const { forge, attach } = setup(database)
    let runs = 0
    const job = forge.job('repeated', { run: () => ++runs })
    await using node = await attach()
    const [waiting, done] = [randomUUID(), randomUUID()]
    expect((await job.enqueue({}, { id: waiting, delay: '1h' })).created).toBe(true)
    expect(await job.enqueue({}, { id: waiting })).toMatchObject({
      id: waiting,
      created: false,
      reason: 'exists',
    })
    await (await job.enqueue({}, { id: done })).result()
    const again = await job.enqueue({}, { id: done })
    expect(again.created).toBe(false)
    expect(await again.result()).toBe(1)
    expect(runs).toBe(1)
    expect((await node.jobs.get(waiting))?.state).toBe('scheduled')
  })

  it('goes on over a connection that breaks, and makes each job once', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('broken.line', { queue: 'broken', run: () => null })
    await using node = await attach({ queues: { broken: false } })
    await job.enqueue({})
    const calls: Promise<unknown>[] = []
    for (let round = 0; round < 20; round++) {
      calls.push(...Array.from({ length: 5 }, () => job.enqueue({})))
      await database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'forge:control' and datname = current_database()`,
      )
    }
    await Promise.all(calls)
    expect((await node.jobs.list({ queue: 'broken', limit: 200 })).length).toBe(101)
  })

  it('makes many jobs in one transaction, in the order of their inputs, or none', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('bulk', { queue: 'bulk', run: () => null })
    await using node = await attach({ queues: { bulk: false } })
    const inputs = Array.from({ length: 12_000 }, (_, i) => ({ i }))
    const handles = await job.enqueueMany(inputs)
    expect(handles).toHaveLength(12_000)
    const some = await node.jobs.get(handles[7_777]?.id as string)
    expect(some?.input).toEqual({ i: 7_777 })
    const bad = [{ i: 1 }, { i: Number.NaN }] as unknown as { i: number }[]
    const before = (await node.jobs.counts()).available
    await expect(job.enqueueMany(bad)).rejects.toMatchObject({ code: 'FORGE_INPUT_NOT_JSON' })
    expect((await node.jobs.counts()).available).toBe(before)
  })

  it('keeps an input with a __proto__ key as data', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('proto', { run: (input: object) => Object.keys(input) })
    await using _node = await attach()
    const input = JSON.parse('{"__proto__": {"polluted": true}, "a": 1}') as object
    expect(await (await job.enqueue(input)).result()).toEqual(['a', '__proto__'])
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  })
})

type Query = (
  this: Pick<pg.Client, 'pipeline'>,
  of: { readonly name?: string; readonly values?: readonly string[] },
  ...more: unknown[]
) => Promise<unknown>

/** The order in which forge's clients are asked for single jobs and hints, and answered; and the last hint. */
function watchQueries(): { readonly order: string[]; readonly told: () => string } {
  const order: string[] = []
  let told = ''
  const query = pg.Client.prototype.query as unknown as Query
  const watched: Query = function (of, ...more) {
    const answer = query.call(this, of, ...more)
    if (of.name === 'forge_notify') told = of.values?.[1] ?? ''
    if (of.name === 'forge_notify') order.push(this.pipeline ? 'notify' : 'notify, in its turn')
    if (of.name === 'forge_insert_job') order.push('insert')
    if (of.name === 'forge_insert_job') void answer.then(() => order.push('answered'))
    return answer
  }
  const spy = vi.spyOn(pg.Client.prototype, 'query').mockImplementation(watched as never)
  onTestFinished(() => spy.mockRestore())
  return { order, told: () => told }
}

describe('what a handler returns', () => {
  it('finishes the job whatever it is', async () => {
    const { forge, attach } = setup(database)
    const cyclic: Record<string, unknown> = { name: 'loop' }
    cyclic.self = cyclic
    const values: Record<string, () => unknown> = {
      undefined: () => undefined,
      nul: () => ({ text: 'a\u0000b', half: '\uD800' }),
      numbers: () => [Number.NaN, Infinity, 10n],
      cycle: () => cyclic,
      fn: () => ({ keep: 1, drop: () => 1 }),
      getter: () => Object.defineProperty({}, 'bad', { enumerable: true, get: () => raise('getter') }),
    }
    const job = forge.job('returns', { run: (input: { key: string }) => values[input.key]?.() })
    await using _node = await attach()
    const results: Record<string, unknown> = {}
    for (const key of Object.keys(values)) results[key] = await (await job.enqueue({ key })).result()
    expect(results).toEqual({
      undefined: null,
      nul: { text: 'a\uFFFDb', half: '\uFFFD' },
      numbers: [null, null, '10'],
      cycle: { name: 'loop', self: '[cycle]' },
      fn: { keep: 1 },
      getter: { bad: '[unreadable]' },
    })
  })

  it('is replaced by a marker when it is too large', async () => {
    const { forge, attach } = setup(database)
    const job = forge.job('huge', { run: () => 'x'.repeat(10_000_000) })
    await using node = await attach()
    const handle = await job.enqueue({})
    await expect(handle.result()).rejects.toMatchObject({ code: 'FORGE_RESULT_TOO_LARGE' })
    expect(await node.jobs.get(handle.id)).toMatchObject({
      state: 'completed',
      resultTooLarge: true,
      result: null,
    })
  })

  it('may throw anything: the job is finished and the error readable', async () => {
    const { forge, attach } = setup(database)
    const thrown: Record<string, () => unknown> = {
      nul: () => new Error('a\u0000b\uD800'),
      text: () => 'just text',
      nothing: () => undefined,
      huge: () => new Error('y'.repeat(10_000_000)),
      hostile: () => new Proxy({}, { get: () => raise('trap') }),
    }
    const job = forge.job('throws', {
      retry: { attempts: 1 },
      run(input: { key: string }) {
        throw thrown[input.key]?.()
      },
    })
    await using node = await attach()
    for (const key of Object.keys(thrown)) {
      const { id } = await job.enqueue({ key })
      await until(async () => (await node.jobs.get(id))?.state === 'discarded', { label: key })
      const error = (await node.jobs.get(id))?.errors[0]
      expect(error?.message.length, key).toBeLessThanOrEqual(4_000)
      expect(JSON.stringify(error), key).not.toContain('\\u0000')
    }
  })
})

function raise(text: string): never {
  throw new Error(text)
}

async function commits(): Promise<number> {
  // The statistics of other sessions arrive late; what is asked for here is the write-ahead position of transactions.
  const [row] = await database.query<{ n: string }>('select pg_current_xact_id()::text as n')
  return Number(row?.n)
}
