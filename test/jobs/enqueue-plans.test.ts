import { expect, test } from 'vitest'
import { quoteSchema } from '../../src/database/index.js'
import { insertUnique } from '../../src/jobs/queries/enqueue.js'
import { forgetKeys, walkKeys } from '../../src/jobs/queries/upkeep.js'
import { type Row, uniqueArrays } from '../../src/jobs/rows.js'
import { idFactory } from '../../src/kernel/index.js'
import { useDatabase } from '../support/database.js'

/*
 * The statements inside a function cannot be explained from outside. What they read is counted instead, in a
 * transaction of their own, on plans that were made while the tables were empty and kept when they are full.
 */
const database = useDatabase()
const nextId = idFactory(() => Date.now())

const rows = (mode: 'skip' | 'replace' | 'debounce', count = 3): Row[] =>
  Array.from({ length: count }, (_, n) => ({
    ...{
      id: nextId(),
      ownId: n % 2 === 0,
      lane: 1,
      queue: 'q',
      priority: 50,
      attemptsMax: 5,
      delayMs: null,
      runAt: null,
    },
    ...{ json: '{}', extra: null },
    unique: {
      scope: 'plans',
      key: `k${n}`,
      mode,
      windowMs: mode === 'debounce' ? 1_000 : null,
      maxWaitMs: null,
    },
  }))

test('enqueueing unique jobs never reads the tables as a whole', async () => {
  const client = await database.pool({ max: 1 }).connect()
  const text = insertUnique.text(quoteSchema('forge'))
  const send = async (mode: 'skip' | 'replace' | 'debounce'): Promise<void> => {
    await client.query({ name: 'unique', text, values: uniqueArrays(rows(mode), false) })
  }
  for (let round = 0; round < 7; round++)
    for (const mode of ['skip', 'replace', 'debounce'] as const) await send(mode)
  await database.query(`
    insert into forge.job (id, lane, state, stage, priority, attempts_max, due, input)
    select gen_random_uuid(), 1, 2, 2, 50, 5, now(), '{}' from generate_series(1, 30000);
    insert into forge.job_unique select 'plans', 'x' || n, gen_random_uuid() from generate_series(1, 30000) n`)
  for (const analyse of [false, true]) {
    if (analyse) await database.query('analyze forge.job, forge.job_unique')
    await client.query('begin')
    for (const mode of ['skip', 'replace', 'debounce'] as const) await send(mode)
    const { rows: read } = await client.query(
      `select relname from pg_stat_xact_user_tables
       where schemaname = 'forge' and (relname in ('job', 'job_unique') or relname like 'job\\_history%') and seq_scan > 0`,
    )
    await client.query('commit')
    expect(read).toEqual([])
  }
  client.release()
})

test('the sweep of keys walks along the index', async () => {
  const client = await database.pool({ max: 1 }).connect()
  await client.query(`begin; set local enable_seqscan = off`)
  for (const [statement, values] of [
    [walkKeys, ['', '', 1_000]],
    [forgetKeys, [['plans'], ['x1'], [nextId()]]],
  ] as const) {
    const { rows: plan } = await client.query<{ 'QUERY PLAN': string }>(
      `explain ${statement.text(quoteSchema('forge'))}`,
      [...values],
    )
    const shown = plan.map((line) => line['QUERY PLAN']).join('\n')
    expect(shown).toContain('job_unique_pkey')
    expect(shown).not.toMatch(/Seq Scan on (job|job_unique)\b/)
  }
  await client.query('rollback')
  client.release()
})
