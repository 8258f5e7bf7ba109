import { setTimeout as pause } from 'node:timers/promises'
import type { Proxy } from '../../src/testing/index.js'
import { randomFrom } from '../testing/random.js'
import type { Fleet } from './fleet.js'

/** `FORGE_SEED` replays the faults of a run: the same ones, on the same victims, at the same moments. */
export function chaosSeed(): number {
  return Number(process.env.FORGE_SEED ?? Math.floor(Math.random() * 2 ** 31))
}

const faultKinds = [
  'kill',
  'kill',
  'pause',
  'pause',
  'cut',
  'hole',
  'tear',
  'tear',
  'slow',
  'terminate',
  'outage',
] as const

export interface Fault {
  readonly atMs: number
  readonly forMs: number
  readonly kind: (typeof faultKinds)[number]
  /** A worker's number; as many as there are workers: the clients; -1: PostgreSQL itself. */
  readonly victim: number
  /** Where an answer is torn off. */
  readonly bytes: number
}

export interface Storm {
  readonly seed: number
  readonly workers: number
  readonly totalMs: number
  readonly leaseMs: number
}

/** All faults of a storm, decided beforehand by the seed alone. */
export function planStorm({ seed, workers, totalMs, leaseMs }: Storm): Fault[] {
  const random = randomFrom(seed)
  const freeAtMs = new Map<number, number>()
  const faults: Fault[] = []
  for (let atMs = 200; atMs < totalMs; atMs += random.int(100, 900)) {
    const kind = random.pick(faultKinds)
    const server = kind === 'outage' || kind === 'terminate'
    const victim = server ? -1 : random.int(0, kind === 'kill' || kind === 'pause' ? workers - 1 : workers)
    const forMs = durationOf(kind, leaseMs, random.fraction())
    const bytes = random.int(1, 4_000)
    if ((freeAtMs.get(victim) ?? 0) > atMs) continue
    // A new process needs a while before there is something to break.
    freeAtMs.set(victim, atMs + forMs + (kind === 'kill' || kind === 'outage' ? 2_500 : 300))
    faults.push({ atMs, forMs, kind, victim, bytes })
  }
  return faults
}

function durationOf(kind: Fault['kind'], leaseMs: number, share: number): number {
  const between = (low: number, high: number): number => Math.round(low + (high - low) * share)
  if (kind === 'pause') return between(leaseMs * 1.2, leaseMs * 2.5)
  if (kind === 'hole') return between(200, leaseMs * 2)
  if (kind === 'cut') return between(0, leaseMs * 1.5)
  if (kind === 'slow') return between(500, 2_000)
  if (kind === 'outage') return between(200, leaseMs * 2)
  return kind === 'kill' ? between(0, 1_500) : 0
}

export interface Targets {
  readonly fleet: Fleet
  readonly clients: Proxy
  readonly server: { stop(how: 'immediate'): Promise<void>; start(): Promise<void> }
  /** pg_terminate_backend of everybody. */
  terminateAll(): Promise<unknown>
}

/** Plays the faults at their moments. Resolves when all are over and healed. */
export async function playStorm(faults: readonly Fault[], targets: Targets): Promise<void> {
  const since = performance.now()
  const playing: Promise<void>[] = []
  for (const fault of faults) {
    await pause(Math.max(0, since + fault.atMs - performance.now()))
    const played = play(fault, targets)
    // Heard at the end.
    played.catch(() => {})
    playing.push(played)
  }
  await Promise.all(playing)
}

async function play({ kind, victim, forMs, bytes }: Fault, targets: Targets): Promise<void> {
  const { fleet, clients, server } = targets
  const member = fleet.members[victim]
  const proxy = member?.proxy ?? clients
  if (kind === 'kill') return fleet.replace(victim, forMs)
  if (kind === 'outage') {
    await server.stop('immediate')
    await pause(forMs)
    return server.start()
  }
  if (kind === 'terminate') return void (await targets.terminateAll().catch(() => {}))
  if (kind === 'pause') member?.node.pause()
  else if (kind === 'cut') proxy.cut()
  else if (kind === 'hole') proxy.blackhole()
  else if (kind === 'slow') proxy.latency(20)
  else proxy.cutAfterBytes({ direction: bytes % 2 === 0 ? 'toClient' : 'toServer', bytes })
  await pause(forMs)
  if (kind === 'pause') member?.node.resume()
  else if (kind === 'cut') proxy.heal()
  else if (kind === 'hole') proxy.resume()
  else if (kind === 'slow') proxy.latency(0)
}
