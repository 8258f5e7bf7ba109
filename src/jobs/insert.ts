import type { Copy, RowOf, Run, Statement } from '../database/index.js'
import type { Database } from '../runtime/index.js'
import type { DueGuess } from './due-guess.js'
import { type Announcement, readyKey, topics } from './hints.js'
import {
  bulkTimes,
  copyJobs,
  insertFull,
  insertJob,
  insertMany,
  insertUnique,
  type MadeRow,
  removeFinishedTwins,
} from './queries/enqueue.js'
import { copyChunks, fullArrays, isPlain, plainArrays, portions, type Row, uniqueArrays } from './rows.js'

/** Why an enqueue made no new job; see `JobHandle.reason`. */
export type EnqueueReason = 'exists' | 'duplicate' | 'replaced' | 'debounced' | 'running'

/** What one enqueue came to. */
export interface Enqueued {
  /** The new job, or the standing one. */
  readonly id: string
  readonly created: boolean
  readonly reason?: EnqueueReason
}

/** What became of rows: one answer each, in their order, and what others may want to hear after the commit. */
export interface Inserted {
  readonly answers: Enqueued[]
  readonly made: Announcement[]
  /** The gates at which jobs wait now. */
  readonly gates: string[]
  xid: string
}

/** Sends one statement, on a connection of forge's own or in the caller's transaction. */
export type Send = <R>(statement: Statement<R>, values: readonly unknown[]) => Promise<R[]>

export interface InsertHow {
  readonly send: Send
  /** The ids may have been used before: by the caller, or by an earlier try of the same call. */
  readonly careful: boolean
}

/** True when the rows need one statement only, so that no transaction must hold several together. */
export function isOneStatement(rows: readonly Row[], careful: boolean): boolean {
  return portions(rows).length === 1 && (!careful || rows[0]?.unique !== null)
}

/** Inserts rows of one kind: unique ones and others do not come together. */
export async function insertRows(rows: readonly Row[], how: InsertHow): Promise<Inserted> {
  const out: Inserted = { answers: [], made: [], gates: [], xid: '' }
  const plain = !how.careful && rows.every(isPlain)
  for (const part of portions(rows)) {
    if (part[0]?.unique) await addUnique(part, how, out)
    else if (plain) await addPlain(part, how, out)
    else await addFull(part, how, out)
  }
  return out
}

/** One job that can run now, on forge's own connection: what most enqueues are. It is announced already. */
export async function insertOne(row: Row, { runAndHint }: Database, dues: DueGuess): Promise<Inserted> {
  const { id, lane, priority, attemptsMax, json } = row
  await runAndHint(insertJob, [id, lane, priority, attemptsMax, json], {
    topic: topics.ready,
    guess: () => {
      const due = dues.guess(priority)
      return due === null ? null : readyKey(lane, due)
    },
    key: ([made]) => readyKey(lane, dues.heard(priority, (made as RowOf<typeof insertJob>).due_ms)),
  })
  return { answers: [{ id, created: true }], made: [], gates: [], xid: '' }
}

/** The fewest rows that `insertBulk` is worth its trips for. */
const bulkMin = 500

/** True for rows of one call that `insertBulk` can take. */
export function isBulk(rows: readonly Row[]): boolean {
  return rows.length >= bulkMin && rows.every(isPlain)
}

/** Rows of one call, so of one lane, priority and time, in the given transaction. */
export async function insertBulk(rows: readonly Row[], run: Run, copy: Copy): Promise<Inserted> {
  const [{ lane, priority, attemptsMax, delayMs, runAt }] = rows as [Row]
  const [times] = await run(bulkTimes, [priority, delayMs, runAt])
  const { run_at, due, due_s, waits } = times as RowOf<typeof bulkTimes>
  const state = waits ? 0 : 2
  const common = [lane, state, state, priority, attemptsMax, run_at, due]
  for (const part of portions(rows)) await copy(copyJobs, copyChunks(part, common))
  const answers = rows.map(({ id }) => ({ id, created: true }))
  return { answers, made: [{ lane, waits, dueSeconds: Number(due_s) }], gates: [], xid: '' }
}

async function addPlain(rows: readonly Row[], { send }: InsertHow, out: Inserted): Promise<void> {
  for (const made of await send(insertMany, plainArrays(rows))) note({ ...made, gates: null }, out)
  for (const row of rows) out.answers.push({ id: row.id, created: true })
}

async function addFull(rows: readonly Row[], how: InsertHow, out: Inserted): Promise<void> {
  const fresh = new Map<string, MadeRow>()
  for (const made of await how.send(insertFull, fullArrays(rows))) fresh.set(made.id, made)
  if (how.careful)
    for (const twin of await how.send(removeFinishedTwins, [`{${[...fresh.keys()].join(',')}}`]))
      fresh.delete(twin.id)
  for (const row of rows) {
    const made = fresh.get(row.id)
    if (made) note({ ...made, gates: row.extra?.gates }, out)
    out.answers.push(answer(row, made ? null : 'exists', row.id))
  }
}

async function addUnique(rows: readonly Row[], how: InsertHow, out: Inserted): Promise<void> {
  const answers = await how.send(insertUnique, uniqueArrays(rows, how.careful))
  answers.forEach(({ job, reason, waits, due_s, xid }, at) => {
    const row = rows[at] as Row
    if (waits !== null && due_s !== null)
      note({ lane: row.lane, waits, due_s, xid, gates: row.extra?.gates }, out)
    out.answers.push(answer(row, reason, job))
  })
}

/** An id of our own that was there already is the work of an earlier try of this same call. */
function answer(row: Row, reason: EnqueueReason | null, id: string): Enqueued {
  if (reason === null || (reason === 'exists' && !row.ownId)) return { id, created: true }
  return { id, created: false, reason }
}

interface Noted extends MadeRow {
  readonly gates: readonly string[] | null | undefined
}

function note({ lane, waits, due_s, xid, gates }: Noted, out: Inserted): void {
  out.xid = xid
  if (gates && !waits) out.gates.push(...gates)
  else out.made.push({ lane, waits, dueSeconds: Number(due_s) })
}
