import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { createDatabase } from '../support/database.js'
import { until } from '../support/until.js'

const start = fileURLToPath(new URL('../../examples/three-nodes/start.mjs', import.meta.url))

test('three nodes say who leads, the lead moves when that one is killed, and Ctrl-C ends all of them', async () => {
  const database = await createDatabase({ migrated: false })
  onTestFinished(() => database.drop())
  const child = spawn(process.execPath, [start], {
    env: { ...process.env, DATABASE_URL: database.url },
    // In a process group of its own, as a terminal would run it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const group = -(child.pid as number)
  onTestFinished(() => {
    try {
      process.kill(group, 'SIGKILL')
    } catch {
      // Nobody is left in it.
    }
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  const exited = once(child, 'exit')
  const leads = () => [...output.matchAll(/\(process (\d+)\) leads under term (\d+)/g)]
  const said = (label: string, found: () => boolean) =>
    until(found, { label, deadlineMs: 40_000 }).catch((error: unknown) => {
      throw new Error(`It said:\n${output}`, { cause: error })
    })
  await said('who leads', () => leads().length === 1)
  await said('a tick', () => output.includes('runs the tick of'))
  const [, leader] = leads()[0] as RegExpExecArray
  process.kill(Number(leader), 'SIGKILL')
  await said('who leads now', () => leads().length === 2)
  expect(leads()[1]?.[1]).not.toBe(leader)
  await said('who takes the place', () => (output.match(/ is process /g) ?? []).length === 4)
  const ticks = await database.query<{ at: number }>(
    `select extract(epoch from planned_at)::float8 as at from forge.schedule_tick order by 1`,
  )
  expect(ticks.filter(({ at }, n) => n > 0 && at - (ticks[n - 1]?.at ?? 0) !== 5)).toEqual([])
  process.kill(group, 'SIGINT')
  expect((await exited)[0]).toBe(0)
})
