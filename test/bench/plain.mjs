/*
 * The yardstick: the least SQL that does the same work through the same driver on the same server. One-row inserts, each
 * committed and awaited; bulk by unnest; a worker of two loops that complete a batch and claim the next in one statement,
 * with finished jobs kept. No retries, leases, wake-ups or anything else of a product: what is left is the floor under
 * the cost of a queue with this shape of tables, not a rival.
 */
import pg from 'pg'

const batch = 500
const loops = 2

const tables = `
  create table job (
    id bigint generated always as identity primary key, queue text not null, name text not null,
    priority smallint not null default 0, run_at timestamptz not null default now(), attempt smallint not null default 0,
    created_at timestamptz not null default now(), input jsonb not null, state smallint not null default 0,
    claimed_at timestamptz);
  create index job_ready on job (queue, priority, run_at, id) where state = 0;
  create table job_done (
    id bigint not null, queue text not null, name text not null, priority smallint not null, attempt smallint not null,
    created_at timestamptz not null, claimed_at timestamptz, input jsonb not null,
    finished_at timestamptz not null default now()) partition by range (finished_at);
  create table job_done_all partition of job_done default;
  create index on job_done (id)`

const insertOne = `insert into job (queue, name, input) values ('default', 'bench', $1) returning id`
const insertMany = `insert into job (queue, name, input) select 'default', 'bench', input from unnest($1::jsonb[]) input`
const completeAndClaim = `
  with gone as (delete from job where id = any($1::bigint[]) returning *),
  kept as (insert into job_done (id, queue, name, priority, attempt, created_at, claimed_at, input)
           select id, queue, name, priority, attempt, created_at, claimed_at, input from gone)
  update job set state = 1, attempt = attempt + 1, claimed_at = now()
  where ctid = any(array(select ctid from job where state = 0 and queue = 'default' and run_at <= now()
                         order by priority, run_at, id limit ${batch} for update skip locked))
  returning id, input`

const named = (client, name, { text, values }) => client.query({ name, text, values })

/** Several such processes deadlock now and then: a claim waits for rows that another statement has just completed. */
function again(error) {
  if (error.code !== '40P01') throw error
  return { rows: null }
}

const createPool = (url, max) => new pg.Pool({ connectionString: url, max }).on('error', () => {})

async function producer(ctx) {
  const pool = createPool(ctx.url, 10)
  return {
    enqueueOne: (payload) => named(pool, 'one', { text: insertOne, values: [JSON.stringify(payload)] }),
    bulkChunk: 5_000,
    enqueueBulk: (payloads) =>
      named(pool, 'many', { text: insertMany, values: [payloads.map((p) => JSON.stringify(p))] }),
    close: () => pool.end(),
  }
}

async function startWorker(ctx, onJob) {
  const pool = createPool(ctx.url, loops)
  let stopping = false
  const loop = async () => {
    const client = await pool.connect()
    let done = []
    while (!stopping) {
      const { rows } = await named(client, 'next', { text: completeAndClaim, values: [done] }).catch(again)
      if (rows === null) continue
      await Promise.all(rows.map(({ input }) => onJob(input)))
      done = rows.map(({ id }) => id)
      // Nobody wakes it: looks often, as what it measures never waits for work.
      if (rows.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
    }
    client.release()
  }
  const running = Array.from({ length: loops }, loop)
  return {
    async stop() {
      stopping = true
      await Promise.all(running)
      await pool.end()
    },
  }
}

const pollers = new Map()

export default {
  name: 'plain SQL',
  async setup(ctx) {
    const pool = createPool(ctx.url, 1)
    await pool.query(tables)
    await pool.end()
  },
  producer,
  startWorker,
  async unfinished(ctx) {
    if (!pollers.has(ctx.url)) pollers.set(ctx.url, createPool(ctx.url, 1))
    const { rows } = await pollers.get(ctx.url).query('select count(*) as n from job')
    return Number(rows[0].n)
  },
}
