import { expect, it } from 'vitest'
import { z } from 'zod'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'

const database = useDatabase()

it.each(['replace', 'debounce'] as const)(
  '%s of a job that has failed starts afresh with the new input',
  async (onConflict) => {
    const name = `afresh.${onConflict}`
    const { forge, attach } = setup(database)
    const job = forge.job(name, {
      unique: { by: () => 'a', onConflict, ...(onConflict === 'debounce' && { for: '1h' }) },
      run: (_: number) => null,
    })
    await using node = await attach({ roles: ['gateway'] })
    const { id } = await job.enqueue(1)
    await database.query(
      `update forge.job set state = 4, stage = 0, attempt = 4, crashes = 2, claims = 6, errors = '[{"message": "old"}]',
              run_at = now() + interval '1 h' where id = $1`,
      [id],
    )
    const reason = onConflict === 'replace' ? 'replaced' : 'debounced'
    expect(await job.enqueue(2)).toMatchObject({ id, reason })
    expect(await node.jobs.get(id)).toMatchObject({
      ...{ state: onConflict === 'replace' ? 'available' : 'scheduled', input: 2 },
      ...{ attempt: 0, crashes: 0, errors: [] },
    })
    expect(await database.query('select claims from forge.job where id = $1', [id])).toEqual([{ claims: 6 }])
  },
)

it('`by` gets the parsed input, and so does who passes the key in SQL', async () => {
  const { forge, attach } = setup(database)
  const given: unknown[] = []
  const job = forge.job('parsed', {
    input: z.object({ user: z.string().transform((user) => ({ id: user.trim().toLowerCase() })) }),
    unique: {
      by(input) {
        given.push(input)
        return input.user.id
      },
    },
    run: () => null,
  })
  await using _node = await attach({ roles: ['gateway'] })
  const { id } = await job.enqueue({ user: ' Anna ' })
  expect(given).toEqual([{ user: { id: 'anna' } }])
  expect(await job.enqueue({ user: 'ANNA' })).toMatchObject({ id, reason: 'duplicate' })
  const sql = `select forge.enqueue('parsed', '{"user": "Anna"}', key => 'anna') as id`
  expect(await database.query(sql)).toEqual([{ id }])
})
