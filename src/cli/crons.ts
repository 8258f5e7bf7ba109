import { tellMade } from '../jobs/index.js'
import { type Crons, openCrons, type Schedule } from '../schedules/index.js'
import { type Answer, exits } from './answer.js'
import type { CronsCall } from './crons-arguments.js'
import { columns } from './output.js'
import { pendingAnswer } from './pending.js'
import type { Station } from './station.js'

/** Looks at schedules, and triggers, pauses and resumes them. */
export async function cronsCommand(station: Station, call: CronsCall): Promise<Answer> {
  const pending = await pendingAnswer(station)
  if (pending) return pending
  const { runtime } = station
  let telling: Promise<unknown> = Promise.resolve()
  const crons = openCrons({
    runtime,
    made: (ids) => void (telling = tellMade(runtime, ids).catch(() => [])),
    // Of definitions a command knows nothing; it makes no schedules.
    check: () => Promise.resolve(),
  })
  if (call.verb === 'list') return list(crons, call)
  if (call.verb === 'preview') return preview(crons, call)
  const answer = await change(crons, call)
  // The hints that wake the nodes still have to leave.
  await telling
  await station.signals.stop()
  return answer
}

async function list(crons: Crons, { limit, after }: CronsCall): Promise<Answer> {
  const schedules = await crons.list({
    ...(limit === undefined ? {} : { limit }),
    ...(after ? { after } : {}),
  })
  return { exit: exits.ok, text: listText(schedules), document: { schedules } }
}

async function preview(crons: Crons, { name, limit }: CronsCall): Promise<Answer> {
  const times = await crons.preview(name, limit)
  const text =
    times.length === 0 ? `${name} fires no more` : times.map((time) => time.toISOString()).join('\n')
  return { exit: exits.ok, text, document: { name, times } }
}

async function change(crons: Crons, { verb, name, who, at }: CronsCall): Promise<Answer> {
  if (verb !== 'trigger') {
    await crons[verb as 'pause' | 'resume'](name, who)
    const text =
      verb === 'pause' ? `${name} fires nothing until it is resumed` : `${name} goes on with its next tick`
    return { exit: exits.ok, text, document: { name, [verb === 'pause' ? 'paused' : 'resumed']: true } }
  }
  const found = await crons.trigger(name, { ...who, ...(at === undefined ? {} : { at }) })
  const { created, outcome, job, planned } = found
  const text = created ? `${name} fired: job ${job ?? ''}` : `${name} made no job: ${outcomes[outcome]}`
  return {
    exit: created || outcome === 'waiting' ? exits.ok : exits.todo,
    text,
    document: { name, created, outcome, job, planned },
  }
}

const outcomes = {
  fired: 'that tick has fired already',
  waiting: 'it waits for the job of the tick before',
  skipped: 'the job of the tick before is unfinished, or a unique job stands',
} as const

function listText(schedules: readonly Schedule[]): string {
  if (schedules.length === 0) return 'no schedules'
  const rows = schedules.map(({ name, state, rule, timezone, next, last, fault }) => [
    name,
    fault === null ? state : `${state}, at fault`,
    rule,
    timezone,
    next?.toISOString() ?? '',
    last ? `${last.planned.toISOString()} ${last.outcome}` : '',
  ])
  return columns([['schedule', 'state', 'rule', 'timezone', 'next', 'last'], ...rows])
}
