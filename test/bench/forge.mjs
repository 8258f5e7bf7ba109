/*
 * forge as one of the systems that a benchmark compares: its public face, from the built package, with default settings.
 * The members are those of every system; README.md describes them.
 */
import { createForge } from 'forge'
import pg from 'pg'

const bulkChunk = 5_000

/** Further job names of this node, for the scenario with many lanes. */
const laneNames = (lanes) => Array.from({ length: lanes }, (_, i) => `bench.lane${i}`)

/**
 * The jobs of all scenarios, in one place. Producers take the handlers too, and never run them. `ctx.extra` names what a
 * scenario needs beside the plain job.
 */
function defineJobs(instance, ctx, onJob) {
  const run = onJob ? async (input) => onJob(input) : () => null
  const { lanes = 0, paused = false, blocked = false, atOnce, keys = 0 } = ctx.extra ?? {}
  const by = keys > 0 && { by: ({ i }) => String(i % keys) }
  const jobs = {
    bench: instance.job('bench', { run, ...(atOnce && { concurrency: { limit: atOnce, ...by } }) }),
  }
  for (const name of laneNames(lanes)) jobs[name] = instance.job(name, { run })
  if (paused) jobs.paused = instance.job('bench.paused', { queue: 'paused', run })
  if (blocked) {
    // The first one holds the only slot until the node stops.
    const hold = (_input, { signal }) =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve(null)))
    jobs.blocked = instance.job('bench.blocked', { queue: 'blocked', concurrency: { limit: 1 }, run: hold })
  }
  return jobs
}

function createPool(url) {
  // Databases are dropped under pools that still idle.
  return new pg.Pool({ connectionString: url, max: 10 }).on('error', () => {})
}

async function attach(ctx, options, onJob) {
  const pool = createPool(ctx.url)
  const instance = createForge()
  const jobs = defineJobs(instance, ctx, onJob)
  const node = await instance.attach(null, pool, { ...ctx.opts, ...options, signals: true })
  return {
    instance,
    jobs,
    node,
    async close() {
      await node.stop({ timeout: '2s' })
      await pool.end()
    },
  }
}

const pollers = new Map()

/** One kept connection per database: the end of a drain is asked for every few milliseconds. */
async function poll({ url }, sql) {
  if (!pollers.has(url)) {
    const client = new pg.Client({ connectionString: url }).on('error', () => pollers.delete(url))
    pollers.set(
      url,
      client.connect().then(() => client),
    )
  }
  const { rows } = await (await pollers.get(url)).query(sql)
  return Number(rows[0].n)
}

const allUnfinished = 'select count(*) as n from forge.job'

/** Beside a crowd of jobs that stay: by the index of what is ready or runs, since counting a million rows takes longer than a drain. */
const ownUnfinished = `
  select count(*) as n from forge.job_lane as own cross join lateral (
    select from forge.job where job.lane = own.id and job.stage = 2 order by job.due, job.id) as job
  where own.name = 'bench' or own.name like 'bench.lane%'`

/** Real finished jobs are the pattern, so that what is seeded has the columns and the tally of what forge writes. */
async function seedHistory(ctx, n) {
  const { jobs, close } = await attach(ctx, {}, () => null)
  await (await jobs.bench.enqueue({ seed: true })).result()
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

/** Enqueues `n` jobs in pieces that enqueueMany takes; `inputOf` makes the input of the i-th. */
async function enqueueAll(job, { n, inputOf = (i) => ({ i }), ...options }) {
  for (let at = 0; at < n; at += bulkChunk) {
    const inputs = Array.from({ length: Math.min(bulkChunk, n - at) }, (_, i) => inputOf(at + i))
    await job.enqueueMany(inputs, options)
  }
}

/** Jobs that stay where they are while others are worked off beside them. Kinds of `crowds`, in the order of the page. */
export const crowds = {
  history: seedHistory,
  async future(ctx, n) {
    const { jobs, close } = await attach(ctx, { roles: ['gateway'] })
    await enqueueAll(jobs.bench, { n, delay: '7d' })
    await close()
  },
  async paused(ctx, n) {
    const { jobs, node, close } = await attach(ctx, { roles: ['gateway'] })
    if (node.queues) await node.queues.pause('paused', { by: 'bench', reason: 'measured beside it' })
    else
      await poll(
        ctx,
        `insert into forge.job_queue (queue, paused_at) values ('paused', now()) returning 0 as n`,
      )
    await enqueueAll(jobs.paused, { n })
    await close()
  },
  async blocked(ctx, n) {
    const { jobs, close } = await attach(ctx, { roles: ['gateway'] })
    await enqueueAll(jobs.blocked, { n })
    await close()
  },
  async foreign(ctx, n) {
    const { instance, close } = await attach(ctx, { roles: ['gateway'] })
    await enqueueAll(instance.job('bench-elsewhere', { run: () => null }), { n })
    await close()
  },
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
    const { jobs, close } = await attach(ctx, { roles: ['gateway'] })
    const lanes = laneNames(ctx.extra?.lanes ?? 0)
    return {
      enqueueOne: (payload) => jobs.bench.enqueue(payload),
      enqueueUrgent: (payload) => jobs.bench.enqueue(payload, { priority: 'critical' }),
      bulkChunk,
      enqueueBulk: (payloads) =>
        lanes.length === 0 ? jobs.bench.enqueueMany(payloads) : spread(jobs, lanes, payloads),
      close,
    }
  },
  async startWorker(ctx, onJob) {
    const { close } = await attach(ctx, {}, onJob)
    return { stop: close }
  },
  unfinished: (ctx) => poll(ctx, ctx.extra && !ctx.extra.atOnce ? ownUnfinished : allUnfinished),
  seedHistory,
}

/** Equal parts of a chunk for each lane. */
async function spread(jobs, lanes, payloads) {
  const size = Math.ceil(payloads.length / lanes.length)
  for (const [i, lane] of lanes.entries()) {
    const part = payloads.slice(i * size, (i + 1) * size)
    if (part.length > 0) await jobs[lane].enqueueMany(part)
  }
}
