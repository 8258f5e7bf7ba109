import { statement } from '../../database/index.js'

/** For forge/testing alone: jobs that run one at a time, when they are asked for. */

export interface NextJob {
  readonly id: string
  readonly name: string
  /** False: its time has not come, or was not noticed yet. */
  readonly available: boolean
}

/**
 * The next job that could run: the most due of the available ones, else of those that wait for a time up to $4 (null: up
 * to now; 'infinity': any) the first. $1 names, $2 capabilities, $3 the queue or null, $5 ids to pass over.
 */
export const nextJob = statement<NextJob>(
  'forge_next_job',
  (s) => `
  select j.id, l.name, j.state = 2 as available
  from ${s}.job j join ${s}.job_lane l on l.id = j.lane
  where ((j.stage = 2 and j.state = 2) or (j.stage = 0 and j.run_at <= coalesce($4::timestamptz, clock_timestamp())))
    and l.name = any($1::text[]) and l.capability = any($2::text[]) and ($3::text is null or l.queue = $3)
    and j.id <> all ($5::uuid[])
  order by j.state <> 2, case when j.state = 2 then j.due else j.run_at end, j.id
  limit 1`,
)

/** Ends the waiting time of a job: the next promotion takes it. */
export const endWait = statement(
  'forge_end_wait',
  (s) =>
    `update ${s}.job set run_at = clock_timestamp() where id = $1 and state in (0, 4) and run_at > clock_timestamp()`,
)

/** Puts an available job before all others of its queue, so that a claim of one takes this one. Answers with queue and lane. */
export const putFirst = statement<{ queue: string; lane: number }>(
  'forge_put_first',
  (s) => `
  update ${s}.job set due = 'epoch' from ${s}.job_lane l
  where job.id = $1 and job.state = 2 and l.id = job.lane
  returning l.queue, job.lane`,
)

export const clearJobs = statement('forge_clear_jobs', (s) => `delete from ${s}.job`)
export const clearClaims = statement('forge_clear_claims', (s) => `delete from ${s}.job_claim`)
export const clearHistory = statement('forge_clear_history', (s) => `delete from ${s}.job_history`)
export const clearTally = statement('forge_clear_tally', (s) => `delete from ${s}.job_tally`)
export const clearKeys = statement('forge_clear_keys', (s) => `delete from ${s}.job_unique`)
export const clearRates = statement('forge_clear_rates', (s) => `delete from ${s}.job_rate`)
