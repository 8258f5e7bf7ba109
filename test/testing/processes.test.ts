import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { spawnNode, type SpawnNodeOptions } from '../../src/testing/index.js'
import { until } from '../support/until.js'
import { startEcho } from './tcp.js'

const execArgv = ['--import', new URL('../support/typescript.mjs', import.meta.url).href]

function start(args: readonly string[], options: Partial<SpawnNodeOptions> = {}) {
  return spawnNode({ script: new URL('./fixtures/child.ts', import.meta.url), args, execArgv, ...options })
}

interface Beat {
  readonly beat: number
  readonly ms: number
}
const isBeat = (message: unknown): message is Beat => typeof (message as Partial<Beat>).beat === 'number'
const beatAfter =
  (last: number) =>
  (message: unknown): message is Beat =>
    isBeat(message) && message.beat > last

describe('a spawned process', () => {
  it('reports over IPC and answers what it is sent', async () => {
    await using child = start(['answer'])
    expect(await child.ready()).toMatchObject({ type: 'ready', cwd: process.cwd() })
    await child.send({ question: [1, 'two', null] })
    const answer = await child.waitForMessage((message) => 'answer' in (message as object))
    expect(answer).toEqual({ answer: { question: [1, 'two', null] } })
    expect(child.messages).toHaveLength(2)
  })

  it('takes a script as a path, with folder, environment and options of Node', async () => {
    await using child = start(['answer'], {
      script: fileURLToPath(new URL('./fixtures/child.ts', import.meta.url)),
      cwd: fileURLToPath(new URL('./fixtures', import.meta.url)),
      env: { MARK: 'made here' },
      execArgv: [...execArgv, '--max-old-space-size=64'],
    })
    const ready = await child.ready()
    expect(ready).toMatchObject({
      mark: 'made here',
      heap: expect.stringContaining('--max-old-space-size=64'),
    })
    expect(ready).toMatchObject({ cwd: expect.stringMatching(/fixtures$/) })
  })

  it('is gone at once when it is killed', async () => {
    await using child = start(['beat'])
    await child.ready()
    child.kill()
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' })
    child.kill()
  })

  it('does nothing while it is paused, and goes on where it was', async () => {
    await using paused = start(['beat'])
    await using witness = start(['beat'])
    await Promise.all([paused.ready(), witness.ready()])

    paused.pause()
    // Beats on the way when the signal was sent arrive during the first of the witness's.
    const first = await witness.waitForMessage(beatAfter(witness.messages.filter(isBeat).length + 10))
    const last = paused.messages.filter(isBeat).at(-1) ?? { beat: 0, ms: 0 }
    const second = await witness.waitForMessage(beatAfter(first.beat + 20))
    expect(paused.messages.filter(isBeat).at(-1) ?? last).toEqual(last)

    paused.resume()
    const next = await paused.waitForMessage(beatAfter(last.beat))
    expect(next.beat).toBe(last.beat + 1)
    expect(next.ms - last.ms).toBeGreaterThan(second.ms - first.ms)
  })

  it('keeps the last of its output', async () => {
    await using child = start(['print'])
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toHaveLength(65_536)
    expect(child.stdout).toMatch(/^o+END$/)
    expect(child.stderr).toBe('some é trouble')
  })

  it('keeps the last of its messages and counts the others', async () => {
    await using child = start(['flood', '10005'])
    await child.ready()
    expect(child.messages).toHaveLength(10_000)
    expect(child.messagesDropped).toBe(6)
    expect(child.messages[0]).toEqual({ number: 7 })
  })

  it('may end by itself after it has reported', async () => {
    await using child = start(['brief'])
    await child.ready()
    expect(await child.exited).toEqual({ code: 0, signal: null })
  })

  it('does not outlive its parent', async () => {
    await using server = await startEcho()
    await using parent = start(['parent', String(server.port)])
    await parent.ready()
    await until(() => server.lines[0]?.end === 'open', { label: 'the child of the process lives' })
    parent.kill()
    await until(() => server.lines[0]?.end !== 'open', { label: 'the child of the killed process is gone' })
  })

  it('cannot be started with a Node that is not there', () => {
    expect(() => start([], { execPath: '/nowhere/node' })).toThrow(
      expect.objectContaining({
        code: 'FORGE_TEST_PROCESS_ENDED',
        message: expect.stringContaining('/nowhere/node'),
      }),
    )
  })
})

describe('waiting for a message', () => {
  it('says at its deadline what came instead', async () => {
    await using child = start(['answer'])
    await child.ready()
    await expect(child.waitForMessage(() => false, { deadlineMs: 30 })).rejects.toMatchObject({
      code: 'FORGE_TEST_DEADLINE',
      message: expect.stringMatching(
        /^Process \d+ sent no such message\. It runs and sent 1 messages.*"ready"/,
      ),
    })
  })

  it('ends as soon as the process has ended, with its exit and its stderr', async () => {
    await using child = start(['fail'])
    const failure = {
      code: 'FORGE_TEST_PROCESS_ENDED',
      message: expect.stringMatching(/code 1, signal null[^]*a fault of its own/),
    }
    await expect(child.ready()).rejects.toMatchObject(failure)
    await expect(child.ready()).rejects.toMatchObject(failure)
    await expect(child.send({})).rejects.toMatchObject({ code: 'FORGE_TEST_PROCESS_ENDED' })
  })

  it('finds a message of a process that has ended since', async () => {
    await using child = start(['brief'])
    await child.exited
    expect(await child.ready()).toEqual({ type: 'ready' })
  })

  it('fails with the error of its predicate', async () => {
    await using child = start(['answer'])
    const broken = child.waitForMessage(() => {
      throw new Error('broken predicate')
    })
    await expect(broken).rejects.toThrow('broken predicate')
  })
})

describe('stopping a process', () => {
  it('asks it to end, and may be done again', async () => {
    await using child = start(['beat'])
    await child.ready()
    expect(await child.stop()).toEqual({ code: null, signal: 'SIGTERM' })
    expect(await child.stop()).toEqual({ code: null, signal: 'SIGTERM' })
  })

  it('kills it when it does not listen', async () => {
    await using child = start(['stubborn'])
    await child.ready()
    expect(await child.stop({ deadlineMs: 100 })).toEqual({ code: null, signal: 'SIGKILL' })
    expect(child.messages).toContainEqual({ asked: 'to end' })
  })

  it('reaches it while it is paused', async () => {
    await using child = start(['beat'])
    await child.ready()
    child.pause()
    expect(await child.stop()).toEqual({ code: null, signal: 'SIGTERM' })
  })
})
