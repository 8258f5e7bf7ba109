/*
 * forge as one of the systems that a benchmark compares: its public face, from the built package, with default settings.
 * The members are those that every adapter has; see README.md.
 */
import { createForge } from 'forge'
import pg from 'pg'

/** The one job of all scenarios; without `onJob` the definition only enqueues. */
function defineJob(instance, onJob) {
  return instance.job('bench', { run: onJob ? async (input) => onJob(input) : () => null })
}

function createPool(url) {
  // Databases are dropped under pools that still idle.
  return new pg.Pool({ connectionString: url, max: 10 }).on('error', () => {})
}

async function attach(ctx, options, onJob) {
  const pool = createPool(ctx.url)
  const instance = createForge()
  const job = defineJob(instance, onJob)
  const node = await instance.attach(null, pool, { ...ctx.opts, ...options, signals: true })
  return {
    job,
    node,
    async close() {
      await node.stop()
      await pool.end()
    },
  }
}

const pollers = new Map()

/** One kept connection per database: the end of a drain is asked for every few milliseconds. */
async function ask(url, sql) {
  if (!pollers.has(url)) {
    const client = new pg.Client({ connectionString: url }).on('error', () => pollers.delete(url))
    pollers.set(
      url,
      client.connect().then(() => client),
    )
  }
  const { rows } = await (await pollers.get(url)).query(sql)
  return rows[0]
}

/** A real finished job is the pattern, so that what is seeded has the columns and the tally of what forge writes. */
async function seedHistory(ctx, n) {
  const { job, close } = await attach(ctx, {}, () => null)
  await (await job.enqueue({ seed: true })).result()
  await close()
  const pool = createPool(ctx.url)
  const { rows } = await pool.query(
    `select string_agg(case attname when 'id' then 'gen_random_uuid()' else quote_ident(attname) end, ', ' order by attnum) as values
     from pg_attribute where attrelid = 'forge.job_history'::regclass and attnum > 0 and not attisdropped`,
  )
  await pool.query(
    `insert into forge.job_history select ${rows[0].values}
     from (select * from forge.job_history limit 1) pattern, generate_series(1, ${Number(n)})`,
  )
  await pool.query(
    `insert into forge.job_tally (lane, state, expires_on, n)
     select lane, state, expires_on, ${Number(n)} from forge.job_history limit 1`,
  )
  await pool.query('vacuum analyze forge.job_history')
  await pool.end()
}

export default {
  name: 'forge',
  variants: { default: {} },
  /** c1, c10, c100: another concurrency than the default. */
  variant(name) {
    const found = /^c(\d+)$/.exec(name)
    if (!found) throw new Error(`forge has the variants default and c<concurrency>, not ${name}.`)
    return { concurrency: Number(found[1]) }
  },
  async setup(ctx) {
    await (await attach(ctx, { roles: ['gateway'] })).close()
  },
  async producer(ctx) {
    const { job, close } = await attach(ctx, { roles: ['gateway'] })
    return {
      enqueueOne: (payload) => job.enqueue(payload),
      bulkChunk: 5_000,
      enqueueBulk: (payloads) => job.enqueueMany(payloads),
      close,
    }
  },
  async startWorker(ctx, onJob) {
    const { close } = await attach(ctx, {}, onJob)
    return { stop: close }
  },
  unfinished: async (ctx) => Number((await ask(ctx.url, 'select count(*) as n from forge.job')).n),
  seedHistory,
}
