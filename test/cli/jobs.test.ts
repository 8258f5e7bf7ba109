import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../../src/cli/index.js'
import type { ForgeNode, JobDefinition } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'
import { call, type Ended, forge } from './command.js'

const database = useDatabase()
const empty = useDatabase({ migrated: false })
const nobody = '00000000-0000-7000-8000-000000000000'
let node: ForgeNode
let job: JobDefinition<unknown, unknown>

beforeAll(async () => {
  const { forge: instance, attach } = setup(database)
  job = instance.job('cli.work', {
    queue: 'cli',
    retry: { attempts: 1 },
    run(input: unknown) {
      if (input === 'fail') throw new TypeError('no \u001b[2Jway')
      return { done: input }
    },
  })
  node = await attach()
})
afterAll(() => node.stop())

const jobs = (...args: string[]): Promise<Ended> => call(['jobs', ...args, '--database-url', database.url])

async function json(...args: string[]) {
  const { code, stdout, stderr } = await jobs(...args, '--json')
  expect(stderr).toBe('')
  return { code, document: JSON.parse(stdout) as Record<string, unknown> }
}

async function waiting(n = 1, input: unknown = {}): Promise<string[]> {
  return (
    await job.enqueueMany(
      Array.from({ length: n }, () => input),
      { delay: '1h' },
    )
  ).map(({ id }) => id)
}

async function failed(): Promise<string> {
  const handle = await job.enqueue('fail')
  await handle.result().catch(() => {})
  return handle.id
}

const stateOf = async (id: string) => (await node.jobs.get(id))?.state

describe('forge jobs', () => {
  it('lists, shows, explains and changes jobs, as processes of their own', async () => {
    const env = { DATABASE_URL: database.url }
    const [id = ''] = await waiting(1, { text: 'hello' })
    const list = await forge(['jobs', 'list', '--queue', 'cli', '--state', 'scheduled'], env)
    expect(list).toMatchObject({ code: 0, stderr: '' })
    expect(list.stdout).toMatch(/^id +state +tried +age +queue +name\n/)
    expect(list.stdout).toContain(`${id}  scheduled  0/1`)
    const show = await forge(['jobs', 'show', id], env)
    expect(show).toMatchObject({ code: 0, stderr: '' })
    expect(show.stdout).toContain('input     {"text":"hello"}\n')
    const explain = await forge(['jobs', 'explain', id], env)
    expect(explain.stdout).toMatch(/^It is scheduled and due at \S+, in 1 h\.\n$/)
    const discard = await forge(['jobs', 'discard', id, '--reason', 'no use'], env)
    expect(discard).toEqual({ code: 0, stderr: '', stdout: `discarded 1 job\n  ${id}\n` })
    expect(await node.jobs.get(id)).toMatchObject({ state: 'discarded', reason: 'no use' })
    const retry = await forge(['jobs', 'retry', id, '--json'], env)
    expect(JSON.parse(retry.stdout)).toMatchObject({ ok: true, ids: [id], matching: 1, dryRun: false })
    // Measured: some 20 ms after the end of the process, by its hint; the poll would take up to 5 s.
    await until(async () => (await stateOf(id)) === 'completed', {
      label: 'the node heard of it',
      deadlineMs: 4_000,
    })
    const found = await json('list', '--id', id)
    expect(found.document).toMatchObject({
      ok: true,
      jobs: [{ id, state: 'completed', result: { done: {} } }],
    })
  })

  it('pages through a list', async () => {
    const ids = (await waiting(3)).reverse()
    const first = await jobs('list', '--limit', '2')
    expect(first.stdout).toContain(`\n\nolder ones: --before ${ids[1]}\n`)
    const second = await json('list', '--limit', '1', '--before', ids[1] as string)
    expect(second.document).toMatchObject({ jobs: [{ id: ids[2] }] })
    expect((await jobs('list', '--name', 'no.such')).stdout).toBe('no jobs\n')
    await node.jobs.cancel(ids)
  })

  it('finds by tag and parent, and gives another time and priority', async () => {
    const [a = '', b = ''] = await waiting(2)
    await database.query(`update forge.job set tags = '{t}', parent = $2 where id = $1`, [a, b])
    expect((await json('list', '--tag', 't')).document).toMatchObject({ jobs: [{ id: a, tags: ['t'] }] })
    expect((await json('list', '--parent', b)).document).toMatchObject({ jobs: [{ id: a, parent: b }] })
    const at = '2031-12-24T18:00:00Z'
    expect((await json('reschedule', '--tag', 't', '--run-at', at, '--priority', '90', '--yes')).code).toBe(0)
    expect(await node.jobs.get(a)).toMatchObject({ priority: 90, runAt: new Date(at) })
    expect((await jobs('reschedule', b, '--delay', '2h')).stdout).toBe(`rescheduled 1 job\n  ${b}\n`)
    await node.jobs.cancel([a, b])
  })
})

describe('a change by filter', () => {
  it('is counted, and needs a yes where nobody can be asked', async () => {
    const ids = await waiting(60)
    const refused = await jobs('cancel', '--name', 'cli.work', '--state', 'scheduled')
    expect(refused).toMatchObject({ code: 2, stdout: '' })
    expect(refused.stderr).toContain('--yes')
    const dry = await jobs('cancel', '--name', 'cli.work', '--state', 'scheduled', '--dry-run')
    expect(dry).toEqual({ code: 0, stderr: '', stdout: 'would cancel 60 jobs; nothing was changed\n' })
    expect(await stateOf(ids[0] as string)).toBe('scheduled')
    const some = await jobs('cancel', '--state', 'scheduled', '--limit', '5', '-y')
    expect(some.stdout).toMatch(/^cancelled 5 jobs .*\n( {2}\S+\n){5}there may be more: run it again\n$/)
    const rest = await jobs('cancel', '--state', 'scheduled', '--yes')
    expect(rest.code).toBe(0)
    expect(rest.stdout).toMatch(/^cancelled 55 jobs/)
    expect(rest.stdout).toContain('\n  and 5 more; --json names them all\n')
    const none = await json('cancel', '--state', 'scheduled', '--yes')
    expect(none).toMatchObject({ code: 0, document: { ids: [], matching: 0, more: false } })
  })

  it('asks a person, and changes nothing without a yes', async () => {
    const [id = ''] = await waiting(1)
    const asked: string[] = []
    const answer = async (yes: boolean): Promise<{ code: number; text: string }> => {
      let text = ''
      const args = ['jobs', 'discard', '--state', 'scheduled', '--database-url', database.url]
      const out = (more: string): void => void (text += more)
      const ask = (question: string): Promise<boolean> => (asked.push(question), Promise.resolve(yes))
      return { code: await run(args, { out, err: out, ask }), text }
    }
    expect(await answer(false)).toEqual({ code: 1, text: 'nothing was changed\n' })
    expect(await stateOf(id)).toBe('scheduled')
    expect(await answer(true)).toEqual({ code: 0, text: `discarded 1 job\n  ${id}\n` })
    expect(await answer(true)).toEqual({ code: 0, text: 'discarded 0 jobs\n' })
    expect(asked).toEqual(['discard 1 job?', 'discard 1 job?'])
  })

  it.each([
    [['cancel', '--yes'], 'FORGE_FILTER_EMPTY'],
    [['retry', '--limit', '5', '--dry-run'], 'FORGE_FILTER_EMPTY'],
    [['retry', 'x'], 'FORGE_FILTER_INVALID'],
    [['list', '--state', 'runing'], 'FORGE_FILTER_INVALID'],
    [['list', '--limit', 'many'], 'FORGE_FILTER_INVALID'],
    [['list', '--limit', '201'], 'FORGE_FILTER_INVALID'],
    [['discard', '--all', '--yes', '--limit', '10001'], 'FORGE_FILTER_INVALID'],
    [['show', `'; drop table forge.job; --`], 'FORGE_FILTER_INVALID'],
    [['reschedule', nobody, '--delay', 'soon'], 'FORGE_DURATION_INVALID'],
    [['reschedule', nobody, '--priority', '101'], 'FORGE_OPTION_INVALID'],
  ])('that is wrong ends with 2: %j', async (args, code) => {
    expect(await json(...args)).toMatchObject({ code: 2, document: { ok: false, error: { code } } })
  })

  it('of everything says --all', async () => {
    expect(await json('retry', '--all', '--dry-run')).toMatchObject({ code: 0, document: { ids: [] } })
  })
})

describe('a job that is not reached', () => {
  it('is named, and the exit code is 1', async () => {
    const handle = await job.enqueue({})
    await handle.result()
    const ended = await jobs('cancel', handle.id, nobody)
    expect(ended).toEqual({
      code: 1,
      stderr: '',
      stdout:
        `cancelled 0 jobs (those that run are asked to stop)\n` +
        `  ${handle.id} not: it is completed\n  ${nobody} not: there is no such job\n`,
    })
    for (const verb of ['show', 'explain']) {
      const none = await jobs(verb, nobody)
      expect(none.code).toBe(1)
      expect(none.stdout).toContain(`There is no job ${nobody}`)
    }
    expect(await json('show', nobody)).toMatchObject({ code: 1, document: { ok: false, job: null } })
  })
})

describe('whatever is stored', () => {
  const evil = 'x\u001b[2J\u009b31m\r\n\u202egnp.exe\u2028'

  it('does not steer the terminal, and fits it', async () => {
    const id = await failed()
    const wide = '很長的名字'.repeat(8)
    const handle = await job.enqueue({ evil, long: 'y'.repeat(5_000) }, { delay: '1h', queue: wide })
    await database.query(`update forge.job set tags = $2 where id = $1`, [handle.id, [evil]])
    await database.query(`insert into forge.job_lane (queue, name) values ($1, $2)`, [
      `evil ${evil}`,
      evil.repeat(5),
    ])
    await database.query(
      `insert into forge.job (id, lane, state, stage, priority, attempts_max, run_at, due, input)
       select gen_random_uuid(), max(id), 0, 0, 0, 1000, now() + interval '1 h', now(), '{}' from forge.job_lane`,
    )
    await node.jobs.cancel(handle.id, `because ${evil}`)
    const shown = [
      await jobs('list'),
      await jobs('show', id),
      await jobs('show', handle.id),
      await jobs('explain', id),
      await jobs('explain', handle.id),
    ]
    for (const { code, stdout, stderr } of shown) {
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202a-\u202e\u2028\u2029]/u)
      for (const line of stdout.split('\n')) expect(columnsOf(line), line).toBeLessThanOrEqual(100)
    }
    expect(shown[1]?.stdout).toContain('TypeError: no \uFFFD[2Jway')
    expect(shown[2]?.stdout).toMatch(/\(\d+ characters; --json has all\)/)
  })

  it('is the same in the document, escaped', async () => {
    const { stdout } = await jobs('list', '--tag', evil, '--json')
    expect(stdout.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202a-\u202e\u2028\u2029]/u)
    expect(JSON.parse(stdout)).toMatchObject({ jobs: [{ tags: [evil], input: { evil } }] })
  })
})

it('says what is pending where the schema is not migrated', async () => {
  const ended = await call(['jobs', 'list', '--database-url', empty.url])
  expect(ended).toMatchObject({ code: 1, stderr: '' })
  expect(ended.stdout).toContain('schema forge is not migrated yet')
})

/** East Asian letters take two columns. */
function columnsOf(line: string): number {
  return [...line].reduce((sum, character) => sum + (/[\u2E80-\u9FFF]/.test(character) ? 2 : 1), 0)
}
