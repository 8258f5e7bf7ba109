import { liveLease } from '../../cluster/index.js'
import { statement } from '../../database/index.js'
import { inputBytesInline, suspectCrashes } from '../job.js'
import type { ClaimedRow } from '../run.js'
import { finishing } from './complete.js'

/**
 * What a trip brings, in one row: a list costs the driver a fraction of what as many rows do. The lists are in the same
 * order, most due first; null when nothing was claimed.
 */
export interface TripRow {
  /** Ids (36 characters each) followed by the tid of the row, joined by semicolons. */
  readonly ids: string | null
  /** The lane of all of them, or of each, joined by commas. */
  readonly lane: number | null
  readonly lanes: string | null
  /** attempts_max * 65536 + attempt, of all of them, or (where they differ) of each, joined by commas. */
  readonly fact: number | null
  readonly facts: string | null
  /**
   * JSON array, two numbers to a lane: lane, and the due of the last that was taken of it, in epoch seconds, exact to the
   * microsecond. With the id it is the position from which the next claim reads.
   */
  readonly lasts: string | null
  /** JSON array. */
  readonly inputs: string | null
  /** Those of which there is more to say than that; of the others every claim was an attempt. */
  readonly odd: readonly Pick<ClaimedRow, 'id' | 'claims' | 'crashes' | 'cancelled' | 'gates'>[] | null
  /** Ids of those whose input was too large to come along, joined by commas. */
  readonly big: string | null
  /** Ids of jobs handed in whose claim was not the current one, joined by commas. */
  readonly missed: string | null
  /** The transaction of the claim; null when it wrote nothing. */
  readonly stamp: string | null
  /** JSON array, three values to a lane: lane, due and id of what comes next, where less was taken than asked for. */
  readonly nexts: string | null
}

/*
 * A claim reads the ready index of each lane from a remembered position on, so that it does not walk what earlier
 * claims left behind there. Nothing is claimed without the live lease, in this very statement: a zombie that wakes up
 * after its rescue gets no rows. Lanes of paused queues are left out here, so that no claim that starts after a pause
 * takes any. Suspects are claimed one by one, by a statement of their own.
 *
 * $1 node, $2 epoch, $3 the token of this claim, $4 lanes, $5 how many to take of each (0: none), $6 and $7 the position to
 * read from (due as epoch seconds, id), $8 the due up to which jobs are taken, $9 the plan (from 1) that each belongs to;
 * $10 how many to take by each plan: of its lanes in their order, until that is reached.
 */
const served = (s: string): string => `
  served as (
    select * from unnest($4::int[], $5::int[], $6::float8[], $7::uuid[], $8::float8[], $9::int[]) as l(lane, reads, due, id, until, plan)
    where ${liveLease(s, '$1::uuid', '$2::uuid')}
      and lane <> all (array(select l.id from ${s}.job_queue q join ${s}.job_lane l on l.queue = q.queue
                             where q.paused_at is not null))
  )`

/** Available jobs of a served lane from its position on. */
const fromPosition = `
      job.lane = served.lane and job.stage = 2 and job.state = 2 and job.crashes < ${suspectCrashes}
        and (job.due, job.id) >= (to_timestamp(served.due), served.id)`

const heads = (s: string): string => `
  heads as (
    select each.at from unnest($10::int[]) with ordinality as plan(n, number) cross join lateral (
      select head.at from served cross join lateral (
        select ctid as at from ${s}.job
        where ${fromPosition} and job.due <= to_timestamp(served.until)
        order by job.due, job.id limit served.reads for update skip locked) as head
      where served.plan = plan.number limit plan.n) as each
  )`

const take = (s: string, heads: string): string => `
    update ${s}.job
       set state = 3, token = $3::uuid, node = $1::uuid, epoch = $2::uuid, claimed_at = clock_timestamp(),
           attempt = attempt + 1, claims = claims + 1, progress = null
     where ctid = any (array(${heads}))
    returning id, ctid as tid, lane, attempts_max * 65536 + attempt as fact, due, input,
              case when crashes > 0 or claims <> attempt or cancel_at is not null or gates is not null
                   then json_build_object('id', id, 'claims', claims, 'crashes', crashes, 'cancelled', cancel_at is not null,
                                          'gates', gates) end as odd`

/** Those that were taken stand in a row of their own, by which they are found when this node dies. */
const noteClaim = (s: string): string => `
    insert into ${s}.job_claim (token, node, epoch, ids)
    select $3::uuid, $1::uuid, $2::uuid, array_agg(id) from taken having count(*) > 0`

/**
 * What all have in common is said once: a text of numbers to each job costs a tenth of the claim. An input is big when it
 * takes much room as it is stored, or (compressed there) as text.
 */
const lists = ({ lanes, lasts }: Pick<Claiming, 'lanes' | 'lasts'>): string => `
    select string_agg(concat(id, tid), ';') as ids, max(lane) as lane, ${lanes} as lanes, max(fact) as fact,
           case when min(fact) < max(fact) then (select string_agg(fact::text, ',' order by due, id) from taken) end as facts,
           ${lasts} as lasts,
           '[' || string_agg(coalesce(inline, 'null'), ',') || ']' as inputs,
           json_agg(odd) filter (where odd is not null) as odd,
           string_agg(id::text, ',') filter (where inline is null) as big
    from (
      select *, case when octet_length(json) <= ${inputBytesInline} then json end as inline
      from (select *, case when pg_column_size(input) <= ${inputBytesInline} then input::text end as json
            from taken order by due, id) as sized
    ) as taken`

/** What comes next in lanes of which less was taken than asked for: the statement's own jobs, all due by `until`, still look available. */
const nexts = (s: string): string => `
  mine as (select lane, count(*) as n, max(due) as due from taken group by lane),
  ahead as (
    select concat('[', string_agg(concat(served.lane, ',', date_part('epoch', next.due), ',"', next.id, '"'), ','), ']') as nexts
    from served
    left join mine on mine.lane = served.lane
    cross join lateral (
      select job.due, job.id from ${s}.job
      where ${fromPosition} and job.due > to_timestamp(served.until)
      order by job.due, job.id limit 1) as next
    where served.reads = 0 or coalesce(mine.n, 0) < served.reads
  )`

/** A claim that found nothing has none, and gets none for this. */
const stamp = (s: string): string =>
  `pg_current_xact_id_if_assigned()::xid || '/' || pg_relation_filenode('${s}.job'::regclass) as stamp`

interface Claiming {
  readonly lanes: string
  readonly lasts: string
  readonly nexts: (s: string) => string
}

const ofOneLane: Claiming = {
  lanes: 'null::text',
  lasts: `concat('[', max(lane), ',', date_part('epoch', max(due)), ']')`,
  nexts: () => `ahead as (select null::text as nexts)`,
}

const ofLanes: Claiming = {
  lanes: `string_agg(lane::text, ',')`,
  lasts: `(select concat('[', string_agg(concat_ws(',', lane, date_part('epoch', due)), ','), ']') from mine)`,
  nexts,
}

const claiming = (s: string, claim: Claiming): string => `
  ${served(s)}, ${heads(s)}, taken as (${take(s, 'select at from heads')}), claim as (${noteClaim(s)}),
  ${claim.nexts(s)}, lists as (${lists(claim)})`

const claimOnly = (claim: Claiming) => (s: string) => `
  with ${claiming(s, claim)} select lists.*, ${stamp(s)}, ahead.nexts, null as missed from lists, ahead`

const exchange = (claim: Claiming) => (s: string) => `
  with ${finishing(s, 11)}, ${claiming(s, claim)}
  select lists.*, ${stamp(s)}, ahead.nexts, missed.ids as missed from lists, ahead, missed`

export const claimJobs = statement<TripRow>('forge_claim_jobs', claimOnly(ofOneLane))
export const claimJobsOfLanes = statement<TripRow>('forge_claim_jobs_of_lanes', claimOnly(ofLanes))

/** The same, and hands in finished jobs on the way: one round trip, one commit. $11 to $17 as of `completeJobs`. */
export const exchangeJobs = statement<TripRow>('forge_exchange_jobs', exchange(ofOneLane))
export const exchangeJobsOfLanes = statement<TripRow>('forge_exchange_jobs_of_lanes', exchange(ofLanes))

/** One job that lost its process before, so that it takes no neighbours with it. $1 node, $2 epoch, $3 token, $4 lanes. */
export const claimSuspect = statement<TripRow>(
  'forge_claim_suspect',
  (s) => `
  with taken as (${take(
    s,
    `select ctid from ${s}.job
     where lane = any ($4::int[]) and stage = 2 and state = 2 and crashes >= ${suspectCrashes} and ${liveLease(s, '$1::uuid', '$2::uuid')}
       and lane <> all (array(select l.id from ${s}.job_queue q join ${s}.job_lane l on l.queue = q.queue
                              where q.paused_at is not null))
     order by due limit 1 for update skip locked`,
  )}), claim as (${noteClaim(s)})${lists({ ...ofOneLane, lasts: 'null::text' })}`,
)
