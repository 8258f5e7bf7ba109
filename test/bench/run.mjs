/* One run: every system at every point of the chosen scenarios, interleaved, each on a database of its own. */
import { cpus, loadavg } from 'node:os'
import { round } from './measure.mjs'
import { peerNames, loadSystem } from './systems.mjs'
import { withClient } from './server.mjs'

/** Below this a scaled scenario would measure its own start. */
const smallestN = 200
const smallestMs = 1_000

/** @param plan scenarios, points (undefined: all), reps, scale, peersFolder (null: without peers), server, report(row) */
export async function runAll(plan) {
  for (const scenario of plan.scenarios) {
    for (let rep = 1; rep <= plan.reps; rep++) {
      for (const point of scenario.points) {
        if (plan.points && !plan.points.includes(point.name)) continue
        for (const name of systemsOf(scenario, plan)) {
          const row = { kind: 'figure', scenario: scenario.name, point: point.name, system: name, rep }
          plan.report({ ...row, ...(await measured(plan, { scenario, point, name })), load: loadavg()[0] })
        }
      }
    }
  }
}

function systemsOf(scenario, { peersFolder, systems }) {
  const names = scenario.systems.flatMap((name) =>
    name === 'peers' ? (peersFolder === null ? [] : peerNames) : [name],
  )
  return systems ? names.filter((name) => systems.includes(name)) : names
}

/** What one measurement came to; a fault of one system must not end the run of the others. */
async function measured(plan, { scenario, point, name }) {
  const { server, scale, peersFolder } = plan
  const fresh = await server.freshDatabase()
  try {
    const system = await loadSystem(name, peersFolder)
    const { database, url } = fresh
    const { options = {}, extra } = point
    const ctx = { database, url, peersFolder, scenario: scenario.name, opts: options, extra }
    await system.setup(ctx)
    const values = await scenario.run({
      system,
      ctx,
      server,
      point,
      n: (count) => Math.max(Math.min(count, smallestN), Math.round(count * scale)),
      ms: (length) => Math.max(Math.min(length, smallestMs), Math.round(length * scale)),
      analyze: () => withClient(url, (client) => client.query('analyze')),
    })
    return { values: rounded(values) }
  } catch (error) {
    // An option that this version does not have: said, not failed.
    if (error.code === 'FORGE_OPTION_UNKNOWN')
      return { skipped: `this build does not know ${/'[^']+'/.exec(error.message)?.[0] ?? 'an option'}` }
    return { error: String(error.message ?? error).slice(0, 300) }
  } finally {
    await fresh.drop()
  }
}

function rounded(values) {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.map(round) : round(value),
    ]),
  )
}

/** What figures depend on beside the code. */
export function surroundings({ server, reps, scale, version }) {
  const [cpu] = cpus()
  return {
    kind: 'run',
    at: new Date().toISOString(),
    forge: version,
    node: process.versions.node,
    machine: `${cpus().length} cores, ${cpu?.model.trim() ?? 'unknown'}, ${process.platform}`,
    server: server.about,
    settings: server.settings,
    reps,
    scale,
  }
}
