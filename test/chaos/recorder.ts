import { mixIds } from '../../src/kernel/index.js'
import { type HistoryEvent } from '../../src/testing/index.js'

type Query = <Row extends object>(sql: string, values?: readonly unknown[]) => Promise<Row[]>

/**
 * Records what PostgreSQL itself saw: triggers on the tables of forge write every claim, release and final outcome
 * with the database's clock, so that no process under test can forget to.
 */
const recorderSql = `
create schema chaos;
create table chaos.effect (job uuid not null, token uuid not null);
create table chaos.log (
  n bigint generated always as identity,
  at bigint not null default (extract(epoch from clock_timestamp()) * 1000000)::bigint,
  kind text not null, job uuid not null, token uuid not null, node text, attempt int, state int, live boolean
);
create function chaos.watch_job() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    if old.state = 3 then insert into chaos.log (kind, job, token, node) values ('gone', old.id, old.token, old.node); end if;
  elsif old.state <> 3 and new.state = 3 then
    insert into chaos.log (kind, job, token, node, attempt, live)
    values ('claimed', new.id, new.token, new.node, new.attempt,
            exists (select from forge.node where id = new.node and epoch = new.epoch and node.state <> 'dead'));
  elsif old.state = 3 and new.state <> 3 then
    insert into chaos.log (kind, job, token, node) values ('released', old.id, old.token, old.node);
  end if;
  return null;
end $$;
create function chaos.watch_history() returns trigger language plpgsql as $$
begin
  if new.token is not null then
    insert into chaos.log (kind, job, token, node, state)
    values ('finalized', new.id, new.token, new.node, new.state);
  end if;
  return null;
end $$;
create trigger chaos_job after update or delete on forge.job for each row execute function chaos.watch_job();
create trigger chaos_history after insert on forge.job_history for each row execute function chaos.watch_history();
`

export async function installRecorder(query: Query): Promise<void> {
  await query(recorderSql)
}

interface LogRow {
  readonly at: string
  readonly kind: 'claimed' | 'released' | 'finalized'
  readonly job: string
  readonly token: string
  readonly node: string
  readonly attempt: number
  readonly state: number
  readonly live: boolean | null
}

const finalNames = { 5: 'completed', 6: 'cancelled', 7: 'discarded', 8: 'quarantined' } as const

export interface Recording {
  readonly events: readonly HistoryEvent[]
  /** Claims that were made without a live lease. */
  readonly deadClaims: number
  /** Completed jobs whose stored result was made by another claim than the one that finished them. */
  readonly staleResults: number
  readonly crashes: number
}

/** Reads the recording back as events for the checker. `enqueued` is what the producers were told. */
export async function readRecording(
  query: Query,
  enqueued: readonly { readonly id: string; readonly acked: boolean }[],
): Promise<Recording> {
  // A claim that is gone has ended otherwise: with the job's completion, or as poison that nobody claims again.
  const log = await query<LogRow>(`select * from chaos.log where kind <> 'gone' order by n`)
  const finals = await query<{ id: string; state: 5 | 6 | 7 | 8; token: string; by: string | null }>(
    `select id, state, token, result ->> 'token' as by from forge.job_history`,
  )
  const effects = await query<{ job: string; token: string }>('select job, token from chaos.effect')
  const [sum] = await query<{ crashes: number }>(
    `select (select coalesce(sum(crashes), 0) from forge.job_history)::int
          + (select coalesce(sum(crashes), 0) from forge.job)::int as crashes`,
  )
  return {
    events: [
      ...enqueued.map(({ id, acked }) => ({ kind: 'enqueued', job: id, acked }) as const),
      ...log.map(toEvent),
      ...finals.map(({ id, state }) => ({ kind: 'terminal', job: id, state: finalNames[state] }) as const),
      ...effects.map(({ job, token }) => ({ kind: 'effect', job, token }) as const),
    ],
    deadClaims: log.filter((row) => row.live === false).length,
    // A fence is the claim's token mixed with the job's id, since the jobs of one claim share it.
    staleResults: finals.filter(({ by, token, id }) => by !== null && by !== mixIds(token, id)).length,
    crashes: sum?.crashes ?? 0,
  }
}

function toEvent(row: LogRow): HistoryEvent {
  const about = { job: row.job, token: row.token, node: row.node, at: Number(row.at) }
  if (row.kind === 'claimed') return { kind: 'claimed', ...about, attempt: row.attempt }
  if (row.kind === 'released') return { kind: 'released', ...about }
  return { kind: 'finalized', ...about, state: finalNames[row.state as 5], accepted: true }
}
