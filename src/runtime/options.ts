import {
  invalidOption,
  list,
  type Logger,
  option,
  quietLogger,
  type Resolved,
  silentLogger,
  splitList,
} from '../kernel/index.js'
import { checkSchemaName } from '../database/index.js'

export const allRoles = ['gateway', 'function', 'worker', 'scheduler'] as const
export type Role = (typeof allRoles)[number]

/** Options of the process as a whole. */
export const runtimeOptions = {
  roles: option.listOf({
    doc: 'What this process does: gateway (HTTP), function (forwarded calls), worker (runs jobs), scheduler (fires schedules).',
    default: allRoles,
    of: allRoles,
  }),
  schema: option.custom({
    doc: 'The PostgreSQL schema that holds all of forge. Two schemas are two independent systems.',
    default: 'forge',
    shows: "'forge'",
    fromText: (text) => text,
    read: checkSchemaName,
  }),
  migrate: option.oneOf({
    doc: 'auto applies pending migrations at start; check and off refuse to start while any is pending; off also skips the comparison of checksums.',
    default: 'auto',
    of: ['auto', 'check', 'off'],
  }),
  capabilities: option.custom<readonly string[]>({
    doc: 'What this node can do beyond the ordinary; jobs that name a capability run only on nodes that declare it.',
    default: [],
    shows: 'none',
    fromText: splitList,
    read: (value, name) => list(value, name).map((item) => checkCapability(item, name)),
  }),
  logger: option.custom<Logger>({
    doc: 'Where messages go: { debug, info, warn, error }(message, fields). By default only warnings and errors, as process warnings; false silences them.',
    default: quietLogger,
    shows: 'process warnings',
    read: readLogger,
  }),
  signals: option.flag({
    doc: 'Stop on SIGTERM and SIGINT, then let the signal end the process. Off: the host calls stop().',
    default: false,
  }),
  startTimeout: option.duration({
    doc: 'How long attach waits for PostgreSQL and for migrations, and how long early calls wait for the start.',
    default: 30_000,
    shows: "'30s'",
    min: 1,
  }),
  stopTimeout: option.duration({
    doc: 'How long stop() lets running handlers finish before it aborts them and hands their jobs back.',
    default: 20_000,
    shows: "'20s'",
  }),
}

export type RuntimeConfig = Resolved<typeof runtimeOptions>

/** A capability is a short plain word. @throws ForgeError FORGE_OPTION_INVALID */
export function checkCapability(value: unknown, name: string): string {
  if (typeof value === 'string' && /^[a-z0-9][a-z0-9._-]{0,62}$/i.test(value)) return value
  throw invalidOption(name, 'needs capabilities of 1 to 63 letters, digits, dots, dashes and underscores')
}

function readLogger(value: unknown, name: string): Logger {
  if (value === false) return silentLogger
  const methods = ['debug', 'info', 'warn', 'error'] as const
  const right =
    typeof value === 'object' &&
    value !== null &&
    methods.every((method) => typeof (value as Record<string, unknown>)[method] === 'function')
  if (!right) throw invalidOption(name, 'must have the methods debug, info, warn and error, or be false')
  return guarded(value as Logger)
}

/** forge logs from timers and listeners, where a logger that throws would end the host's process. */
function guarded(logger: Logger): Logger {
  const line =
    (level: keyof Logger): Logger['info'] =>
    (message, fields) => {
      try {
        logger[level](message, fields)
      } catch {
        // It cannot be reported by the thing that failed.
      }
    }
  return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
}
