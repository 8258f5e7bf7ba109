import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createForge, type ForgeNode } from '../../src/index.js'
import { checkHistory } from '../../src/testing/index.js'
import { useDatabase } from '../support/database.js'
import { until } from '../support/until.js'
import { Fleet, type Member } from './fleet.js'
import { isAbout, long, startNode } from './nodes.js'
import { installRecorder, readRecording } from './recorder.js'
import type { ChaosInput } from './worker.js'

const database = useDatabase()
const rounds = long ? 20 : 1
const lease = { ms: 1_000, renewMs: 250 }
const forge = createForge()
const plain = forge.job('chaos', { run: (input: ChaosInput) => input.ms })
const parsed = forge.job('chaos.parsed', { run: (input: ChaosInput) => input.ms })
const enqueued: { id: string; acked: boolean }[] = []
const rerunsMs: number[] = []
let kills = 0
let gateway: ForgeNode
let fleet: Fleet

beforeAll(async () => {
  await installRecorder(database.query)
  gateway = await forge.attach(null, database.pool(), { roles: ['gateway'], lease, logger: false })
  const options = { roles: ['worker'], lease, concurrency: 1, queues: { slow: false } } as const
  fleet = await Fleet.start({ url: database.url, size: 2, options })
})
afterAll(async () => {
  await fleet[Symbol.asyncDispose]()
  await gateway.stop()
})

interface Gap {
  readonly where: string
  readonly work?: typeof parsed
  readonly input: ChaosInput
  /** Resolves when this worker stands in the gap; it is killed then. Asked before the job is there. */
  arrives(member: Member, id: string): Promise<unknown>
  /** Claims and handler starts of the whole job. */
  readonly claims: number
  readonly starts: number
}

const onWork = {
  only: ({ applicationName }: { applicationName?: string | undefined }): boolean =>
    applicationName === 'forge:work' || applicationName === 'forge:finish',
}

const said = (member: Member, matches: (message: unknown) => boolean): Promise<unknown> => {
  const seen = new Set(member.node.messages)
  return member.node.waitForMessage((m) => !seen.has(m) && matches(m), { deadlineMs: 20_000 })
}
const cut = (member: Member, order: { match: string; bytes?: number }): Promise<unknown> =>
  member.proxy.cutAfterBytes({ direction: 'toServer', ...order, ...onWork }).happened({ deadlineMs: 20_000 })

const gaps: readonly Gap[] = [
  {
    where: 'between the commit of its claim and the answer',
    input: { ms: 20 },
    arrives: (member) => cut(member, { match: 'forge_claim_' }),
    claims: 2,
    starts: 1,
  },
  {
    where: 'before its handler',
    work: parsed,
    input: { ms: 20 },
    arrives: (member) => said(member, (m) => (m as { kind?: string }).kind === 'parsing'),
    claims: 2,
    starts: 1,
  },
  {
    where: 'in its handler',
    input: { ms: 60_000 },
    arrives: (member, id) => said(member, (m) => isAbout(m, 'started', id)),
    claims: 2,
    starts: 2,
  },
  {
    where: 'between the end of its handler and its completion',
    input: { ms: 20 },
    // Within the statement, so that the server does not run it.
    arrives: (member, id) => cut(member, { match: id, bytes: 0 }),
    claims: 2,
    starts: 2,
  },
  {
    where: 'between the commit of its completion and the answer',
    input: { ms: 20 },
    arrives: (member, id) => cut(member, { match: id }),
    claims: 1,
    starts: 1,
  },
]

/** False where the machine was too slow for the gap: the kill came late, or another node's lease ended too. */
async function playRound({ work = plain, input, arrives, claims, starts }: Gap): Promise<boolean> {
  const id = randomUUID()
  const victim = enqueued.length % 2
  const [member, other] = [fleet.members[victim], fleet.members[1 - victim]] as [Member, Member]
  const nodes = new Set([member.node, other.node])
  const reached = arrives(member, id)
  // So that the one that is watched gets the job.
  other.node.pause()
  await work.enqueue(input, { id })
  enqueued.push({ id, acked: true })
  await reached.finally(() => other.node.resume())
  const killed = performance.now()
  kills += 1
  const replaced = fleet.replace(victim, 0)
  const done = async (): Promise<boolean> => (await gateway.jobs.get(id))?.state === 'completed'
  await until(done, { deadlineMs: 30_000, label: 'completed all the same' })
  if (claims > 1) rerunsMs.push(performance.now() - killed)
  await replaced
  for (const { node } of fleet.members) nodes.add(node)

  const [row] = await database.query<{ claims: number }>(
    'select claims, attempt, crashes from forge.job_history where id = $1',
    [id],
  )
  expect(row).toMatchObject({ attempt: 1, crashes: (row?.claims ?? 0) - 1 })
  if (row?.claims !== claims) return false
  const begun = [...nodes].flatMap((node) => node.messages.filter((m) => isAbout(m, 'started', id)))
  expect(begun).toHaveLength(starts)
  return true
}

const triesMax = 4

async function playSurely(gap: Gap): Promise<void> {
  for (let tries = 0; tries < triesMax; tries++) if (await playRound(gap)) return
  throw new Error(`none of ${triesMax} kills came ${gap.where}`)
}

for (const gap of gaps) {
  it(
    `${rounds} times, a job survives SIGKILL of its worker ${gap.where}`,
    { timeout: rounds * 120_000 },
    async () => {
      for (let round = 0; round < rounds; round++) await playSurely(gap)
    },
  )
}

/** So many that a worker hands in several of one claim at once, without looking for more. */
const bulk = 300

it.each([
  ['within the completion of a claim as a whole', { bytes: 0 }],
  ['between the commit of such a completion and the answer', {}],
])(
  `${rounds} times, ${bulk} jobs survive SIGKILL of their worker %s`,
  { timeout: rounds * 60_000 },
  async (_where, how) => {
    for (let round = 0; round < rounds; round++) {
      const victim = round % 2
      const [member, other] = [fleet.members[victim], fleet.members[1 - victim]] as [Member, Member]
      const reached = cut(member, { match: 'forge_complete_claim', ...how })
      other.node.pause()
      const handles = await plain.enqueueMany(
        Array.from({ length: bulk }, () => ({ ms: 0, how: 'nothing' }) as const),
      )
      enqueued.push(...handles.map(({ id }) => ({ id, acked: true })))
      await reached.finally(() => other.node.resume())
      kills += 1
      await fleet.replace(victim, 0)
      const left = async (): Promise<unknown> => (await database.query('select from forge.job limit 1'))[0]
      await until(async () => !(await left()), { deadlineMs: 30_000, label: 'all have ended' })
    }
  },
)

it('lost nothing, and each killed job ran again within the lease and a moment', async () => {
  const recording = await readRecording(database.query, enqueued)
  const verdict = checkHistory(recording.events, { attemptsMax: 2 })
  expect(verdict.ok, verdict.summary).toBe(true)
  expect(recording).toMatchObject({ deadClaims: 0, staleResults: 0 })
  const slowest = Math.max(...rerunsMs)
  process.stdout.write(
    `gaps: ${kills} kills, ${enqueued.length} jobs, 0 lost; kill to completion by another at most ${slowest.toFixed(0)} ms ` +
      `with a lease of ${lease.ms} ms\n`,
  )
  // Measured at 1.3 s to 1.8 s.
  expect(slowest).toBeLessThan(10_000)
})

it.runIf(long)(
  'reruns a job at most 15 s after SIGKILL at default settings',
  { timeout: 120_000 },
  async () => {
    const options = { roles: ['worker'], queues: { '*': false, slow: {} } } as const
    const first = await startNode(database.url, { options })
    const id = randomUUID()
    await plain.enqueue({ ms: 60_000 }, { id, queue: 'slow' })
    await first.waitForMessage((m) => isAbout(m, 'started', id), { deadlineMs: 20_000 })
    await using heir = await startNode(database.url, { options })
    first.kill('SIGKILL')
    const killed = performance.now()
    await heir.waitForMessage((m) => isAbout(m, 'started', id), { deadlineMs: 30_000 })
    const rerunMs = performance.now() - killed
    process.stdout.write(`kill to rerun at default settings: ${rerunMs.toFixed(0)} ms\n`)
    expect(rerunMs).toBeLessThan(15_000)
  },
)
