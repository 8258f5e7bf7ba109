import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll } from 'vitest'
import type { AttachOptions, ForgeNode } from '../../src/index.js'
import type { TestDatabaseAccess } from '../support/database.js'
import { setup } from '../support/forge.js'
import { until } from '../support/until.js'

export interface Span {
  readonly key: string
  /** Milliseconds of the database's clock. */
  readonly began: number
  readonly ended: number
}

/** The most spans that overlap. */
export function most(spans: readonly Span[]): number {
  const edges = spans.flatMap(({ began, ended }) => [
    { at: began, step: 1 },
    { at: ended, step: -1 },
  ])
  let [now, peak] = [0, 0]
  for (const { step } of edges.sort((a, b) => a.at - b.at || a.step - b.step))
    peak = Math.max(peak, (now += step))
  return peak
}

/** Inputs with keys k0, k1 … in turn. */
export const keys = (n: number, of: number): { key: string }[] =>
  Array.from({ length: n }, (_, i) => ({ key: `k${i % of}` }))

/** Every admission at a rate gate, also those that are forgotten by now: at (milliseconds) and how many. */
export function ratesOf(
  database: TestDatabaseAccess,
  gate: string,
): Promise<{ at: number; taken: number }[]> {
  return database.query(
    'select extract(epoch from at)::float8 * 1000 as at, taken from rated where gate = $1 order by at, total',
    [gate],
  )
}

const tables = `
  create table span (name text, key text, began timestamptz, ended timestamptz);
  create table rated (like forge.job_rate);
  grant all on span, rated to public;
  create function note_rate() returns trigger language plpgsql as $$
    begin insert into public.rated select new.*; return null; end $$;
  create trigger note_rate after insert on forge.job_rate for each row execute function note_rate();`

/** Nodes of one job each, as two processes would have them, and a table in which each run that ends well notes its time. */
export function limitKit(database: TestDatabaseAccess) {
  const nodes: ForgeNode[] = []
  beforeAll(() => database.query(tables))
  afterAll(async () => {
    for (const node of nodes) await node.stop({ timeout: 0 })
  })

  /** `fails`: so many attempts of each job throw. The second node attaches when the first one runs. */
  async function twoNodes(
    { fails = 0, ...definition }: Record<string, unknown> & { readonly fails?: number },
    options: (name: string) => readonly AttachOptions[] = () => [],
  ) {
    const name = `job.${randomUUID()}`
    const recorder = database.pool({ max: 10 })
    const bundles = [setup(database), setup(database)] as const
    const define = (bundle: (typeof bundles)[number], given: Record<string, unknown>) =>
      bundle.forge.job(name, {
        queue: name,
        ...given,
        async run(input: { key: string }, job) {
          if (job.attempt <= fails) throw new Error('not yet')
          const { rows } = await recorder.query<{ at: string }>('select clock_timestamp()::text as at')
          await recorder.query('select pg_sleep(0.005)')
          const values = [name, input.key, rows[0]?.at]
          await recorder.query('insert into span values ($1, $2, $3, clock_timestamp())', values)
        },
      })
    const [one, two] = [define(bundles[0], definition), define(bundles[1], definition)]
    for (const [at, { attach }] of bundles.entries()) nodes.push(await attach(options(name)[at]))
    const spans = (): Promise<Span[]> =>
      database.query(
        `select key, extract(epoch from began)::float8 * 1000 as began, extract(epoch from ended)::float8 * 1000 as ended
         from span where name = $1 order by began`,
        [name],
      )
    const done = async (n: number): Promise<Span[]> => {
      const label = `${n} jobs of ${name} are done`
      await until(async () => (await spans()).length >= n, { label, deadlineMs: 60_000 })
      return spans()
    }
    return {
      name,
      one,
      two,
      attached: nodes.slice(-2),
      redefine: (given: Record<string, unknown>) => define(bundles[0], given),
      done,
      spans,
    }
  }

  /** How many more a gate would let through now, when the last ends are written. */
  async function free(gate: string): Promise<number> {
    const open = `select count(*) as n from forge.job where $1 = any (gates)`
    await until(async () => (await database.query<{ n: string }>(open, [gate]))[0]?.n === '0', {
      label: 'all are gone',
    })
    return (
      (await database.query<{ free: number }>('select free from forge.job_gate($1)', [gate]))[0]?.free ?? -1
    )
  }

  return { twoNodes, free }
}
