import type { Statement } from '../database/index.js'
import {
  asRecord,
  codeOf,
  ForgeError,
  type ForgeErrorCode,
  invalidOption,
  isStorable,
  messageOf,
  unknownOption,
} from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { ByWhom, Crons, PastTick, Schedule, ScheduleEvent, Triggered } from './face.js'
import {
  createSchedule,
  deleteSchedule,
  jobNeeds,
  listEvents,
  listSchedules,
  listTicks,
  pauseSchedule,
  resumeSchedule,
  type ScheduleRow,
  triggerSchedule,
  updateSchedule,
} from './queries/manage.js'
import {
  checkScheduleName,
  hashOf,
  type JobScheduleOptions,
  readMoment,
  readSchedule,
  ruleText,
  type ScheduleRule,
  type ScheduleSpec,
  timesOf,
} from './spec.js'

/** Topic of the signals port: schedules changed; keys are their names. */
export const changedTopic = 'schedules.changed'

export interface CronsParts {
  readonly runtime: Pick<Runtime, 'db' | 'signals'>
  /** Told of jobs that ticks made, after the commit. */
  readonly made: (ids: readonly string[]) => void
  /** Checks an input against the schema of a job, where this process knows it. */
  readonly check: (job: string, input: unknown) => Promise<void>
}

const limitMax = 1_000
const textBytesMax = 1_000

/** For a node, or for a command that is none. */
export function openCrons(parts: CronsParts): Crons {
  const stored = new StoredCrons(parts)
  return Object.freeze({
    list: (options?: { readonly limit?: number; readonly after?: string }) => stored.list(options),
    get: (name: string) => stored.find(name),
    preview: (name: string, n?: number) => stored.preview(name, n),
    ticks: (name: string, options?: { readonly limit?: number }) => stored.ticks(name, options?.limit),
    events: (name: string, options?: { readonly limit?: number }) => stored.events(name, options?.limit),
    trigger: (name: string, options?: ByWhom & { readonly at?: Date | string }) =>
      stored.trigger(name, options),
    pause: (name: string, options?: ByWhom) => stored.change(pauseSchedule, name, options),
    resume: (name: string, options?: ByWhom) => stored.change(resumeSchedule, name, options),
    create: (name: string, rule: ScheduleRule, options: JobScheduleOptions & ByWhom) =>
      stored.create(name, rule, options),
    update: (name: string, rule: ScheduleRule, options: JobScheduleOptions & ByWhom) =>
      stored.update(name, rule, options),
    delete: (name: string, options?: ByWhom) => stored.delete(name, options),
  })
}

/** The schedules in the table, for people and programs: `Crons` says what each does. */
class StoredCrons {
  readonly #parts: CronsParts

  constructor(parts: CronsParts) {
    this.#parts = parts
  }

  async list(options?: { readonly limit?: number; readonly after?: string }): Promise<Schedule[]> {
    const limit = readCount(options?.limit ?? limitMax, 'Option limit of list()')
    const after = options?.after ?? null
    if (after !== null && (typeof after !== 'string' || !isStorable(after)))
      throw invalidOption('Option after of list()', 'must be the name of a schedule')
    const rows = await this.#parts.runtime.db.reader.run(listSchedules, [null, after, limit])
    return rows.map((row) => this.#toSchedule(row))
  }

  async find(name: string): Promise<Schedule | null> {
    const row = await this.#row(name)
    return row ? this.#toSchedule(row) : null
  }

  async preview(name: string, n = 10): Promise<Date[]> {
    const count = readCount(n, 'The number of preview()')
    const row = (await this.#row(name)) ?? unknownSchedule(name)
    const found: Date[] = []
    for (let at = this.#next(row); at !== null && found.length < count; at = timesOf(row.spec).after(at))
      found.push(new Date(at))
    return found
  }

  async ticks(name: string, limit = 50): Promise<PastTick[]> {
    const values = [checkScheduleName(name), readCount(limit, 'Option limit of ticks()')]
    const rows = await this.#parts.runtime.db.reader.run(listTicks, values)
    return rows.map(({ planned_at: planned, fired_at: fired, late_ms: lateMs, ...row }) => {
      return { planned, fired, lateMs, ...row }
    })
  }

  async events(name: string, limit = 50): Promise<ScheduleEvent[]> {
    const values = [checkScheduleName(name), readCount(limit, 'Option limit of events()')]
    return this.#parts.runtime.db.reader.run(listEvents, values)
  }

  async trigger(name: string, options?: ByWhom & { readonly at?: Date | string }): Promise<Triggered> {
    const { runtime, made } = this.#parts
    const who = readWho(options, 'trigger', ['at'])
    const at = readMoment(options?.at, 'Option at of trigger()')
    const values = [checkScheduleName(name), ...who, at === null ? null : new Date(at)]
    const [row] = await runtime.db.control.run(triggerSchedule, values).catch(refusedBySql)
    if (!row) {
      const found = await this.#row(name)
      if (found?.paused_at) throw new ForgeError('FORGE_SCHEDULE_PAUSED', `'${name}'.`)
      unknownSchedule(name)
    }
    const { outcome, job, planned_at: planned, standing, standing_job } = row
    if (job) made([job])
    // Somebody is to look whether its time has come.
    if (outcome === 'waiting') this.#tell(name)
    return outcome === null
      ? { planned, created: false, outcome: standing ?? 'fired', job: standing_job }
      : { planned, created: outcome === 'fired', outcome, job }
  }

  /** Pause and resume. */
  async change(statement: Statement<{ name: string }>, name: string, options?: ByWhom): Promise<void> {
    const values = [checkScheduleName(name), ...readWho(options, 'pause() and resume()')]
    const rows = await this.#parts.runtime.db.control.run(statement, values)
    if (rows.length === 0) unknownSchedule(name)
    this.#tell(name)
  }

  async create(name: string, rule: unknown, options: unknown): Promise<void> {
    const values = await this.#read(name, rule, options)
    const rows = await this.#parts.runtime.db.control.run(createSchedule, values)
    if (rows.length === 0) throw new ForgeError('FORGE_SCHEDULE_EXISTS', `'${name}'.`)
    this.#tell(name)
  }

  async update(name: string, rule: unknown, options: unknown): Promise<void> {
    const values = await this.#read(name, rule, options)
    const rows = await this.#parts.runtime.db.control.run(updateSchedule, values)
    if (rows.length === 0) await this.#refuse(name)
    this.#tell(name)
  }

  async delete(name: string, options?: ByWhom): Promise<void> {
    const values = [checkScheduleName(name), ...readWho(options, 'delete')]
    const rows = await this.#parts.runtime.db.control.run(deleteSchedule, values)
    if (!rows[0]?.done) await this.#refuse(name)
    this.#tell(name)
  }

  /** Why a change of a schedule that people made found none. */
  async #refuse(name: string): Promise<never> {
    if (await this.#row(name)) throw new ForgeError('FORGE_SCHEDULE_IN_CODE', `'${name}'.`)
    return unknownSchedule(name)
  }

  async #read(given: string, rule: unknown, options: unknown): Promise<unknown[]> {
    const name = checkScheduleName(given)
    const { by, reason, ...rest } = asRecord(options, `The options of schedule '${name}'`)
    const who = readWho({ by, reason }, 'create() and update()')
    if (rest.run !== undefined)
      throw invalidOption(
        `run of schedule '${name}'`,
        'is for forge.cron: what stands in a table has no function',
      )
    const spec = readSchedule(name, rule, rest)
    const nowMs = await this.#checkJob(name, spec)
    if (timesOf(spec).after(nowMs) === null)
      throw new ForgeError('FORGE_SCHEDULE_NEVER', `'${name}': ${ruleText(spec)}.`)
    return [name, ...who, JSON.stringify(spec), hashOf(spec)]
  }

  /** Gives the clock of the database. */
  async #checkJob(name: string, spec: ScheduleSpec): Promise<number> {
    const [needs] = await this.#parts.runtime.db.control.run(jobNeeds, [spec.job])
    if (!needs) throw new ForgeError('FORGE_SCHEDULE_JOB_UNKNOWN', `'${spec.job.slice(0, 60)}'.`)
    if (needs.keyed && spec.key === null)
      throw invalidOption(`key of schedule '${name}'`, `is needed: '${spec.job}' computes one from its input`)
    if (spec.key !== null && !needs.takes_key)
      throw invalidOption(`key of schedule '${name}'`, `is for jobs with unique, concurrency or rate`)
    if (spec.jitterMs > 0 && needs.debounced)
      throw invalidOption(
        `jitter of schedule '${name}'`,
        `does not go with '${spec.job}', which is debounced`,
      )
    await this.#parts.check(spec.job, spec.input)
    return needs.now_ms
  }

  async #row(name: string): Promise<ScheduleRow | undefined> {
    const values = [checkScheduleName(name), null, 1]
    return (await this.#parts.runtime.db.reader.run(listSchedules, values))[0]
  }

  /** Of one that the leader has not looked at yet it is worked out here. */
  #next({ spec, next_at, planned, paused_at, removed_at, now_ms: nowMs }: ScheduleRow): number | null {
    if (removed_at !== null) return null
    if (paused_at !== null) return timesOf(spec).after(nowMs)
    if (planned || next_at === null) return next_at?.getTime() ?? null
    return 'atMs' in spec.rule ? spec.rule.atMs : timesOf(spec).after(nowMs)
  }

  #toSchedule(row: ScheduleRow): Schedule {
    const { name, origin, spec, waiting, fault } = row
    const state = row.removed_at ? 'removed' : row.paused_at ? 'paused' : row.next_at ? 'active' : 'finished'
    const next = state === 'active' ? this.#next(row) : null
    const { job, input, queue, priority, missed, overlap, jitterMs, zone: timezone } = spec
    return {
      ...{
        name,
        origin,
        state,
        rule: ruleText(spec),
        timezone,
        job,
        input,
        queue,
        priority,
        missed,
        overlap,
        jitterMs,
      },
      start: dateOf(spec.startMs),
      end: dateOf(spec.endMs),
      next: dateOf(next),
      last: lastOf(row),
      waiting,
      paused: row.paused_at && { at: row.paused_at, by: row.paused_by, reason: row.paused_reason },
      fault,
    }
  }

  #tell(name: string): void {
    this.#parts.runtime.signals.hint(changedTopic, name)
  }
}

const dateOf = (ms: number | null): Date | null => (ms === null ? null : new Date(ms))

function lastOf(row: ScheduleRow): Schedule['last'] {
  const { tick_planned_at: planned, tick_fired_at: fired, tick_outcome: outcome, tick_job: job } = row
  if (!planned || !fired || !outcome) return null
  return { planned, fired, lateMs: fired.getTime() - planned.getTime(), outcome, job }
}

function unknownSchedule(name: string): never {
  throw new ForgeError('FORGE_SCHEDULE_UNKNOWN' satisfies ForgeErrorCode, `'${String(name).slice(0, 60)}'.`)
}

/** What the SQL functions refuse has codes of its own: see docs/sql.md. */
function refusedBySql(error: unknown): never {
  const code = codeOf(error)
  if (!code.startsWith('ZF')) throw error
  const cause = { cause: error }
  if (code === 'ZF001') throw new ForgeError('FORGE_SCHEDULE_JOB_UNKNOWN', `${messageOf(error)}.`, cause)
  throw new ForgeError('FORGE_OPTION_INVALID', `${messageOf(error)}.`, cause)
}

function readCount(value: unknown, name: string): number {
  if (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= limitMax)
    return value as number
  throw invalidOption(name, `must be a whole number from 1 to ${limitMax}`)
}

function readWho(
  options: unknown,
  what: string,
  others: readonly string[] = [],
): [string | null, string | null] {
  const record = asRecord(options, `The options of ${what}`)
  const known = ['by', 'reason', ...others]
  for (const key of Object.keys(record)) if (!known.includes(key)) throw unknownOption(key, known)
  return [readText(record.by, `Option by of ${what}`), readText(record.reason, `Option reason of ${what}`)]
}

function readText(value: unknown, name: string): string | null {
  if (value === undefined || value === null) return null
  if (typeof value === 'string' && Buffer.byteLength(value) <= textBytesMax && !value.includes('\0'))
    return value
  throw invalidOption(name, `must be text of at most ${textBytesMax} bytes`)
}
