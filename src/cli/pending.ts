import { codeVersion, migrationStatus } from '../database/index.js'
import { type Answer, exits } from './answer.js'
import type { Station } from './station.js'

/** Where the schema stands. */
interface SchemaFacts {
  readonly schema: string
  readonly version: number
  /** The newest migration that this command carries. */
  readonly codeVersion: number
  readonly pending: readonly string[]
}

/** What is said instead of anything else while migrations are pending; null: none is. */
export async function pendingAnswer(station: Station): Promise<Answer | null> {
  const facts = await readSchema(station)
  return facts.pending.length > 0 ? answerPending(facts) : null
}

export async function readSchema({ runtime }: Station): Promise<SchemaFacts> {
  const { db, clock, log, config } = runtime
  const given = { source: db.source, schema: db.schema, clock, logger: log, waitMs: 0, checksums: false }
  const { version, pending } = await migrationStatus(given)
  return { schema: config.schema, version, codeVersion, pending }
}

export function answerPending(facts: SchemaFacts): Answer {
  return { exit: exits.todo, text: pendingText(facts), document: { ...facts } }
}

function pendingText({ schema, version, pending }: SchemaFacts): string {
  const state = version === 0 ? 'is not migrated yet' : `is at version ${version}`
  return `schema ${schema} ${state}; pending: ${pending.join(', ')}\nRun forge migrate, or start a node with migrate: 'auto'.`
}
