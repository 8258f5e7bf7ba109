import type { Leading } from '../cluster/index.js'
import { Bell, isConnectionError, messageOf } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import { type Plan, planTicks } from './plan.js'
import {
  type DueRow,
  dueSchedules,
  type FiredRow,
  fireTicks,
  holdSchedule,
  releaseTicks,
  waitingSchedules,
} from './queries/ticks.js'

type Due = DueRow & { readonly name: string }

/** Looked at in one go; a full one is followed by the next at once. */
const dueMax = 500
/** Looked at least so often: hints may be lost, and what is found so is still on time. */
const pollMs = 10_000
/** While ticks wait for jobs to end. */
const waitingMs = 1_000
const againMs = 1_000
/** After ticks that had waited: the next of them may be free as soon as its job has ended. */
const releasedMs = 100
/** Ticks in one statement, or those of one schedule. */
const ticksMax = 200
/** Working out what was missed may take long: others get their turn. */
const turnMs = 20

/** Fires what is due, while this node leads. It sleeps until the next tick, by the clock of the database. */
export class Ticker {
  readonly #runtime: Runtime
  readonly #fired: (rows: readonly FiredRow[]) => void
  readonly #bell = new Bell()
  /** Milliseconds until the first is tried again of those that could not be made. */
  #heldMs = Number.POSITIVE_INFINITY

  /** `fired`: told after the commit. */
  constructor(runtime: Runtime, fired: (rows: readonly FiredRow[]) => void) {
    this.#runtime = runtime
    this.#fired = fired
  }

  /** Something may be due sooner than it was. */
  wake(): void {
    this.#bell.ring()
  }

  async lead({ term, signal }: Pick<Leading, 'term' | 'signal'>): Promise<void> {
    while (!signal.aborted) {
      const { clock, faults } = this.#runtime
      const waitMs = await faults.attempt('the round of schedules', () => this.#turn(term.id, signal))
      if (waitMs !== 0) await this.#bell.wait(clock, waitMs ?? againMs, signal)
    }
  }

  /** Once it leads no longer, whatever fails is of no interest. */
  #turn(term: string, signal: AbortSignal): Promise<number> {
    return this.#round(term, signal).catch((error: unknown) => {
      if (signal.aborted) return 0
      // Another leads, and this node is about to hear of it.
      if (termOver(error)) return againMs
      throw error
    })
  }

  /** Gives the milliseconds until the next. */
  async #round(term: string, signal: AbortSignal): Promise<number> {
    const { clock, db } = this.#runtime
    const beganMs = clock.monotonicMs()
    this.#heldMs = Number.POSITIVE_INFINITY
    const rows = await db.control.run(dueSchedules, [dueMax])
    const [{ now_ms: nowMs, in_ms: inMs, waiting }] = rows as [DueRow]
    const due = rows.filter((row): row is Due => row.name !== null)
    const plans = await this.#plan({ due, nowMs, term }, signal)
    if (signal.aborted) return 0
    let waits = waiting
    for (const part of portions(plans)) {
      if (signal.aborted) return 0
      const rows = await this.#fire(term, part)
      waits ||= rows.some(({ outcome }) => outcome === 'waiting')
      this.#fired(rows)
    }
    const released = waiting ? await this.#release(term) : []
    this.#fired(released)
    if (due.length === dueMax) return 0
    const nexts = plans.flatMap(({ plan }) => (plan.nextMs === null ? [] : [plan.nextMs - nowMs]))
    const nextMs = Math.min(inMs ?? pollMs, this.#heldMs, ...nexts) - (clock.monotonicMs() - beganMs)
    return Math.max(
      1,
      Math.ceil(Math.min(nextMs, released.length > 0 ? releasedMs : waits ? waitingMs : pollMs)),
    )
  }

  async #plan({ due, nowMs, term }: Look, signal: AbortSignal): Promise<Planned[]> {
    const { clock } = this.#runtime
    const plans: Planned[] = []
    let untilMs = clock.monotonicMs() + turnMs
    for (const row of due) {
      if (signal.aborted) return []
      try {
        const { name, spec, next_ms: nextMs, planned, last_ms: lastMs } = row
        plans.push({ row, plan: planTicks({ name, spec, nextMs, planned, lastMs }, nowMs) })
      } catch (error) {
        // A zone that this machine does not know, for example.
        await this.#hold(term, row, error)
      }
      if (clock.monotonicMs() < untilMs) continue
      await new Promise((turn) => setImmediate(turn))
      untilMs = clock.monotonicMs() + turnMs
    }
    return plans
  }

  /** What cannot be fired must not keep the others. */
  async #fire(term: string, plans: readonly Planned[]): Promise<FiredRow[]> {
    const { db } = this.#runtime
    try {
      return await db.control.run(fireTicks, [term, JSON.stringify(plans.map(written))])
    } catch (error) {
      if (isConnectionError(error) || termOver(error)) throw error
      const [first] = plans as [Planned]
      if (plans.length === 1) {
        await this.#hold(term, first.row, error)
        return []
      }
    }
    const rows: FiredRow[] = []
    for (const plan of plans) rows.push(...(await this.#fire(term, [plan])))
    return rows
  }

  /** One that cannot be released must not keep the others either. */
  async #release(term: string): Promise<FiredRow[]> {
    const { db } = this.#runtime
    try {
      return await db.control.run(releaseTicks, [term, null])
    } catch (error) {
      if (isConnectionError(error) || termOver(error)) throw error
    }
    const rows: FiredRow[] = []
    for (const schedule of await db.control.run(waitingSchedules)) {
      try {
        rows.push(...(await db.control.run(releaseTicks, [term, schedule.name])))
      } catch (error) {
        if (isConnectionError(error) || termOver(error)) throw error
        await this.#hold(term, schedule, error)
      }
    }
    return rows
  }

  async #hold(term: string, { name, rev }: Pick<Due, 'name' | 'rev'>, error: unknown): Promise<void> {
    this.#runtime.log.error(`forge: schedule '${name}' cannot fire: ${messageOf(error)}`)
    const [held] = await this.#runtime.db.control.run(holdSchedule, [name, messageOf(error), rev, term])
    this.#heldMs = Math.min(this.#heldMs, held?.ms ?? againMs)
  }
}

interface Look {
  readonly due: readonly Due[]
  readonly nowMs: number
  readonly term: string
}

interface Planned {
  readonly row: Due
  readonly plan: Plan
}

/** One statement must not take long: it holds up the others of its connection. */
function portions(plans: readonly Planned[]): Planned[][] {
  const parts: Planned[][] = []
  let room = 0
  for (const plan of plans) {
    const size = plan.plan.ticks.length + 1
    if (room < size) {
      parts.push([])
      room = ticksMax
    }
    parts.at(-1)?.push(plan)
    room -= size
  }
  return parts
}

const termOver = (error: unknown): boolean => messageOf(error).includes('the term is over')

const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString())

function written({ row, plan }: Planned): unknown {
  const ticks = plan.ticks.map(({ atMs, runAtMs, missed }) => ({
    at: iso(atMs),
    run_at: iso(runAtMs),
    missed,
  }))
  return { name: row.name, rev: row.rev, next: iso(plan.nextMs), ticks }
}
