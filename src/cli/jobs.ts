import { type Changed, type JobFilter, type Jobs, jobsOptions, openJobs } from '../jobs/index.js'
import { resolveOptions } from '../kernel/index.js'
import { environment } from '../runtime/index.js'
import { type Answer, exits } from './answer.js'
import type { JobsCall } from './jobs-arguments.js'
import { changeText, jobText, listText, matchingText } from './jobs-text.js'
import { wrapped } from './output.js'
import type { Station } from './station.js'
import { pendingAnswer } from './pending.js'
import { UsageError } from './usage.js'

/** Who may be asked before something is changed; null: nobody is there. */
type Ask = ((question: string) => Promise<boolean>) | null

/** Looks at jobs and changes them. Nothing is written unless the call names jobs, or somebody said yes. */
export async function jobsCommand(station: Station, call: JobsCall, ask: Ask): Promise<Answer> {
  const isChange = !['list', 'show', 'explain'].includes(call.verb)
  const named = call.filter.ids !== undefined
  if (isChange && !named && !call.yes && !call.dryRun && !ask)
    throw new UsageError('A change by filter needs --yes where nobody can be asked; --dry-run counts first.')
  const pending = await pendingAnswer(station)
  if (pending) return pending
  const { retention } = resolveOptions({ retention: jobsOptions.retention }, {}, environment())
  const keep = { completedMs: retention.completed, discardedMs: retention.discarded }
  const jobs = openJobs(station.runtime, keep)
  if (!isChange) return look(jobs, call, station)
  if (!named && !call.yes && !call.dryRun && ask) {
    const counted = await change(jobs, call, true)
    if (counted.matching === 0) return changeAnswer(call, counted)
    if (!(await ask(`${call.verb} ${matchingText(counted)}?`)))
      return { exit: exits.todo, text: 'nothing was changed', document: { ...counted, dryRun: true } }
  }
  const changed = await change(jobs, call, call.dryRun)
  // The hints that wake the nodes still have to leave.
  await station.signals.stop()
  return changeAnswer(call, changed)
}

async function look(jobs: Jobs, { verb, filter }: JobsCall, { runtime }: Station): Promise<Answer> {
  const [id = ''] = filter.ids ?? []
  if (verb === 'list') {
    const found = await jobs.list(filter)
    return {
      exit: exits.ok,
      text: listText(found, filter, runtime.clock.wallMs()),
      document: { jobs: found },
    }
  }
  if (verb === 'show') {
    const job = await jobs.get(id)
    if (job) return { exit: exits.ok, text: jobText(job), document: { job } }
  }
  const explanation = await jobs.explain(id)
  const exit = explanation.state === null ? exits.todo : exits.ok
  const document = verb === 'show' ? { job: null } : { id, ...explanation }
  return { exit, text: wrapped(explanation.sentence, 100).join('\n'), document }
}

function change(jobs: Jobs, { verb, filter, ending, times }: JobsCall, dryRun: boolean): Promise<Changed> {
  const which: JobFilter = filter
  switch (verb) {
    case 'retry':
      return jobs.retry(which, { dryRun })
    case 'cancel':
      return jobs.cancel(which, { ...ending, dryRun })
    case 'discard':
      return jobs.discard(which, { ...ending, dryRun })
    default:
      return jobs.reschedule(which, { ...times, dryRun })
  }
}

/** Something is left to do when jobs that were named were not reached, or when jobs were refused. */
function changeAnswer({ verb, dryRun }: JobsCall, changed: Changed): Answer {
  const left = changed.skipped.length + changed.refused.length
  const exit = left > 0 ? exits.todo : exits.ok
  return { exit, text: changeText(verb, changed, dryRun), document: { ...changed, dryRun } }
}
