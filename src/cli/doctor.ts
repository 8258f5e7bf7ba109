import { errorCatalogue, isForgeError } from '../kernel/index.js'
import { type Answer, type Exit, exits, failureOf } from './answer.js'
import type { Check } from './check.js'
import { judge } from './checks.js'
import { gather } from './facts.js'
import { columns } from './output.js'
import { type Station, targetText } from './station.js'

/** Looks at everything that can be wrong around forge. A database that cannot be reached is the only finding then. */
export async function doctorCommand(station: Station): Promise<Answer> {
  const { checks, exit } = await examine(station)
  return { exit, text: textOf(checks), document: { checks } }
}

async function examine(station: Station): Promise<{ checks: readonly Check[]; exit: Exit }> {
  try {
    const checks = judge(await gather(station))
    return { checks, exit: checks.some(({ state }) => state === 'fail') ? exits.todo : exits.ok }
  } catch (error) {
    const { exit, code } = failureOf(error)
    if (!isForgeError(error) || (exit !== exits.unreachable && code !== 'FORGE_SERVER_TOO_OLD')) throw error
    const fix = errorCatalogue[error.code]
    const detail = `${targetText(station.target)}: ${error.message.replace(fix, '').trim()}`
    return { checks: [{ name: 'connection', state: 'fail', detail, fix }], exit }
  }
}

function textOf(checks: readonly Check[]): string {
  const rows = checks.flatMap(({ name, state, detail, fix }) => [
    [state, name, detail],
    ...(fix ? [['', '', `-> ${fix}`]] : []),
  ])
  return columns(rows)
}
