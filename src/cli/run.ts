import packageJson from '../../package.json' with { type: 'json' }
import { type Logger, silentLogger } from '../kernel/index.js'
import { environment } from '../runtime/index.js'
import { type Answer, type Exit, exits, failureOf } from './answer.js'
import { type Call, type Command, readArguments } from './arguments.js'
import { cronsCommand } from './crons.js'
import { drainCommand, leadersCommand, nodesCommand } from './cluster.js'
import { doctorCommand } from './doctor.js'
import { help } from './help.js'
import { jobsCommand } from './jobs.js'
import { migrateCommand } from './migrate.js'
import { type Output, printable, printableJson } from './output.js'
import { openStation, type Station } from './station.js'
import { statusCommand } from './status.js'

const perform: Readonly<
  Record<Exclude<Command, 'migrate' | 'jobs' | 'crons' | 'drain'>, (station: Station) => Promise<Answer>>
> = {
  status: statusCommand,
  doctor: doctorCommand,
  nodes: nodesCommand,
  leaders: leadersCommand,
}

/** One call of the command; the arguments are those after its name. Never rejects. */
export async function run(args: readonly string[], output: Output): Promise<Exit> {
  const json = args.includes('--json')
  const logger = json ? silentLogger : loggerOn(output)
  try {
    const answer = await answerTo(readArguments(args, environment()), logger, json ? undefined : output.ask)
    output.out(json ? documentOf(answer.exit, answer.document) : `${answer.text}\n`)
    return answer.exit
  } catch (error) {
    const { exit, code, message } = failureOf(error)
    if (json) output.out(documentOf(exit, { error: { code, message } }))
    else output.err(`forge: ${printable(message)} (${code})\n`)
    return exit
  }
}

async function answerTo(call: Call, logger: Logger, ask: Output['ask']): Promise<Answer> {
  const { version } = packageJson
  if (call.kind === 'help') return { exit: exits.ok, text: help.trimEnd(), document: { help } }
  if (call.kind === 'version') return { exit: exits.ok, text: version, document: { version } }
  const station = openStation({ ...call, logger })
  try {
    if (call.kind === 'jobs') return await jobsCommand(station, call, ask ?? null)
    if (call.kind === 'migrate') return await migrateCommand(station, call)
    if (call.kind === 'crons') return await cronsCommand(station, call)
    if (call.kind === 'drain') return await drainCommand(station, call.id)
    return await perform[call.kind](station)
  } finally {
    await station.close()
  }
}

function documentOf(exit: Exit, document: Readonly<Record<string, unknown>>): string {
  return `${printableJson(JSON.stringify({ ok: exit === exits.ok, ...document }, null, 2))}\n`
}

/** Warnings go beside the answer, never into it. */
function loggerOn(output: Output): Logger {
  const line = (message: string): void => output.err(`${printable(message)}\n`)
  return { ...silentLogger, warn: line, error: line }
}
