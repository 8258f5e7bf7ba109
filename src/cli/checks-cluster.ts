import { type Check, ok } from './check.js'
import type { ClusterFacts } from './facts.js'

const skewMsMax = 2_000

/** What the nodes say of themselves, and what they leave behind. */
export function clusterJudges(facts: ClusterFacts): (() => Check)[] {
  return [judgeLeaders, judgeClocks, judgeOrphans, judgeStorage].map((one) => () => one(facts))
}

function judgeLeaders({ nodes, led }: ClusterFacts): Check {
  const name = 'leaders'
  // A node that drains or is about to join does not ask.
  const has = (role: string): boolean =>
    nodes.some(({ roles, state }) => state === 'active' && roles.includes(role))
  const wanted = [
    ...(has('scheduler') ? ['scheduler'] : []),
    ...(has('scheduler') || has('worker') ? ['maintenance'] : []),
  ]
  const missing = wanted.filter((role) => !led.includes(role))
  if (missing.length === 0)
    return ok(name, wanted.length === 0 ? 'no node asks to lead' : `${wanted.join(', ')}: led`)
  return {
    name,
    state: 'warn',
    detail: `nobody leads ${missing.join(', ')}, although nodes ask for it`,
    fix: "Ask again in 10 s: another may just be taking over. Then look at the nodes' log for 'can lead role'.",
  }
}

function judgeClocks({ nodes }: ClusterFacts): Check {
  const name = 'node clocks'
  const off = nodes.filter(({ clockMs }) => Math.abs(clockMs ?? 0) > skewMsMax)
  if (off.length === 0) return ok(name, 'those of all nodes are within 2 s of the database')
  const said = off.slice(0, 5).map(({ host, clockMs }) => {
    return `${host} ${(Math.abs(clockMs ?? 0) / 1_000).toFixed(1)} s ${(clockMs ?? 0) > 0 ? 'behind' : 'ahead'}`
  })
  return {
    name,
    state: 'warn',
    detail: said.join(', '),
    fix: 'Set the clocks by NTP. Leases, due times and ticks are those of the database; logs and `runAt` are of these.',
  }
}

function judgeOrphans({ orphans, nodes }: ClusterFacts): Check {
  const name = 'leases'
  if (orphans === 0) return ok(name, 'no claim has been without a lease for a minute')
  const detail = `${orphans} claims have had no lease for a minute and longer; their jobs are not taken back`
  const fix =
    nodes.length === 0
      ? 'Start a node: it takes them back.'
      : "Look at the nodes' log: any node takes them back within a minute of contact."
  return { name, state: 'warn', detail, fix }
}

function judgeStorage({ hints }: ClusterFacts): Check {
  const name = 'storage'
  const [worst] = hints
  if (!worst) return ok(name, 'vacuum keeps up, and no large index is unused')
  const megabytes = Math.round(worst.bytes / 1_000_000)
  if (worst.what === 'unused index')
    return {
      name,
      state: 'warn',
      detail: `index ${worst.name} takes ${megabytes} MB and has not been used since the statistics began`,
      fix: 'If it is yours, drop it: each write pays for it.',
    }
  return {
    name,
    state: 'warn',
    detail: `${worst.name} holds ${worst.dead.toLocaleString('en')} dead rows beside ${worst.live.toLocaleString('en')} (${megabytes} MB)`,
    fix: 'Look at `transactions` first: an old one keeps vacuum from cleaning up. Else give autovacuum more room.',
  }
}
