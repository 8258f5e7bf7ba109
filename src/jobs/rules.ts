import type { Runtime } from '../runtime/index.js'
import type { Admission } from './admit.js'
import { topics } from './hints.js'
import { classes, type Limits } from './limits.js'
import type { QueueOption } from './options.js'
import { writeLimits } from './queries/limits.js'

/** The limit of all gates of one class, as admissions and enqueues by SQL read it. */
interface LimitRule {
  readonly gateClass: string
  readonly limit: number
  readonly perMs: number | null
  readonly keyed: boolean
}

/** Where this process says something of limits. */
interface Sources {
  readonly registry: { all(): readonly { readonly name: string; readonly limits: Limits }[] }
  readonly options: { readonly queues: ReadonlyMap<string, QueueOption> }
}

/**
 * Writes what this process' definitions and options say of limits, for the whole cluster, where it differs: the last
 * to say so counts. A definition without limits takes away those of its name; a queue that is not named, or named
 * without `limit`, is left as it is.
 */
export async function publishLimits(
  { runtime, registry, options }: Sources & { readonly runtime: Runtime },
  admission: Admission,
): Promise<void> {
  const { rules, unlimited } = rulesOf({ registry, options })
  const changed = await runtime.db.control.run(writeLimits, [
    rules.map((rule) => rule.gateClass),
    rules.map((rule) => rule.limit),
    rules.map((rule) => rule.perMs),
    rules.map((rule) => rule.keyed),
    unlimited,
  ])
  if (changed.length === 0) return
  runtime.signals.hint(topics.queues, 'limits')
  await admission.recheck(changed.map((row) => row.gate_class))
}

/** The rules, and the classes that are to have none. */
function rulesOf({ registry, options }: Sources): { rules: LimitRule[]; unlimited: string[] } {
  const rules: LimitRule[] = []
  const unlimited: string[] = []
  const say = (gateClass: string, rule: Omit<LimitRule, 'gateClass'> | null): void => {
    if (rule) rules.push({ gateClass, ...rule })
    else unlimited.push(gateClass)
  }
  for (const { name, limits } of registry.all()) {
    const { concurrency, rate } = limits
    say(classes.concurrency(name), concurrency ? { ...concurrency, perMs: null } : null)
    say(classes.rate(name), rate ?? null)
  }
  for (const [queue, option] of options.queues) {
    if (option === false || option.limit === undefined) continue
    const { limit } = option
    say(classes.queue(queue), limit === null ? null : { limit, perMs: null, keyed: false })
  }
  return { rules, unlimited }
}
