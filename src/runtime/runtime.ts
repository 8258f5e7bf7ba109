import {
  ClientSource,
  type HostPool,
  PostgresSignals,
  quoteSchema,
  Session,
  type SessionOptions,
} from '../database/index.js'
import {
  type Clock,
  createNewsDesk,
  type Logger,
  messageOf,
  type NewsDesk,
  randomId,
  type Signals,
  systemClock,
} from '../kernel/index.js'
import { Faults } from './faults.js'
import type { RuntimeConfig } from './options.js'
import { silentSpan, type Span } from './span.js'

/** Where a room gets its connections. */
export interface Database {
  readonly source: ClientSource
  /** Quoted. */
  readonly schema: string
  /** The shared connection for short statements: enqueues, marks, registrations, probes. */
  readonly control: Session
  /** `control.run`, and a hint at the outcome, sooner than `signals.hint`. */
  readonly runAndHint: PostgresSignals['run']
  /** Lists, counts and look-ups for people; opens when used, closes after 30 s idle. */
  readonly reader: Session
  /** Another reserved connection, owned and closed by the caller. */
  open(purpose: string, limits?: Partial<Omit<SessionOptions, 'purpose'>>): Session
}

/** What every service is given: small, frozen, the same for all. */
export interface Runtime {
  readonly db: Database
  readonly clock: Clock
  readonly log: Logger
  /** Of what goes on by itself: who stays in trouble is heard. */
  readonly faults: Faults
  readonly news: NewsDesk
  readonly signals: Signals
  readonly config: RuntimeConfig
  readonly nodeId: string
  /** A span for one piece of work; a no-op until observability records spans. */
  readonly span: (name: string) => Span
}

/** A runtime, and the two parts of it that have a life. */
export interface RuntimeParts {
  readonly runtime: Runtime
  readonly signals: PostgresSignals
  /** Closes the shared connections; the last step of stop. */
  readonly close: () => Promise<void>
}

const statementMs = 10_000
const readerIdleMs = 30_000

/** @throws ForgeError FORGE_POOL_INVALID, FORGE_POOL_ENDED */
export function createRuntime(
  pool: HostPool,
  config: RuntimeConfig,
  clock: Clock = systemClock,
): RuntimeParts {
  const source = new ClientSource(pool)
  const schema = quoteSchema(config.schema)
  const context = { source, schema, clock }
  const control = new Session(context, { purpose: 'control', statementMs, generic: true, pipeline: true })
  const reader = new Session(context, { purpose: 'reader', statementMs, idleMs: readerIdleMs })
  const signals = new PostgresSignals({
    source,
    clock,
    session: control,
    schema: config.schema,
    logger: config.logger,
  })
  const db: Database = {
    source,
    schema,
    control,
    runAndHint: (statement, values, hint) => signals.run(statement, values, hint),
    reader,
    open: (purpose, limits) => new Session(context, { statementMs, ...limits, purpose }),
  }
  const runtime: Runtime = Object.freeze({
    db: Object.freeze(db),
    clock,
    log: config.logger,
    faults: new Faults(clock, config.logger),
    news: createNewsDesk((error, name) => {
      config.logger.warn(`forge: a listener of ${name} threw: ${messageOf(error)}`)
    }),
    signals,
    config,
    nodeId: randomId(),
    span: silentSpan,
  })
  return {
    runtime,
    signals,
    close: async () => {
      await Promise.all([control.close(), reader.close()])
    },
  }
}
