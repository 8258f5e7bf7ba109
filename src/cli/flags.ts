/** Every option of the command, whatever it is an option of; all are read before it is known which are meant. */
export const flags = {
  'database-url': { type: 'string' },
  schema: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
  state: { type: 'string', multiple: true },
  queue: { type: 'string' },
  name: { type: 'string' },
  tag: { type: 'string' },
  parent: { type: 'string' },
  id: { type: 'string', multiple: true },
  before: { type: 'string' },
  limit: { type: 'string' },
  all: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  yes: { type: 'boolean', short: 'y' },
  reason: { type: 'string' },
  delay: { type: 'string' },
  'run-at': { type: 'string' },
  priority: { type: 'string' },
  by: { type: 'string' },
  at: { type: 'string' },
  after: { type: 'string' },
  sql: { type: 'boolean' },
} as const

export type Flag = keyof typeof flags

/** Options of every command. */
export const commonFlags: readonly Flag[] = ['database-url', 'schema', 'json', 'help', 'version']

const filters: readonly Flag[] = ['state', 'queue', 'name', 'tag', 'parent', 'id', 'before', 'limit']
const changes: readonly Flag[] = [...filters, 'all', 'dry-run', 'yes']

/** The verbs of `forge jobs`, with their options. */
export const jobsVerbs = {
  list: filters,
  show: ['id'],
  explain: ['id'],
  retry: changes,
  cancel: [...changes, 'reason'],
  discard: [...changes, 'reason'],
  reschedule: [...changes, 'delay', 'run-at', 'priority'],
} as const satisfies Record<string, readonly Flag[]>

/** The verbs of `forge crons`, with their options. */
export const cronsVerbs = {
  list: ['limit', 'after'],
  preview: ['limit'],
  trigger: ['at', 'by', 'reason'],
  pause: ['by', 'reason'],
  resume: ['by', 'reason'],
} as const satisfies Record<string, readonly Flag[]>

export type CronsVerb = keyof typeof cronsVerbs
export type JobsVerb = keyof typeof jobsVerbs
export const cronsVerbNames = Object.keys(cronsVerbs) as CronsVerb[]
export const jobsVerbNames = Object.keys(jobsVerbs) as JobsVerb[]
