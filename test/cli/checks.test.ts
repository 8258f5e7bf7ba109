import { describe, expect, it } from 'vitest'
import { judge } from '../../src/cli/checks.js'
import type { Check } from '../../src/cli/check.js'
import type { Facts } from '../../src/cli/facts.js'

const sound: Facts = {
  target: 'app@db:5432/shop',
  schema: 'forge',
  serverVersion: 180_004,
  pooler: 'none',
  ledger: { version: 2, codeVersion: 2, pending: [], failure: null },
  role: { role: 'app', superuser: false, usage: true, create: false },
  gaps: [],
  clock: { aheadMs: 12, doubtMs: 1, machine: 'web-1' },
  room: {
    max: 100,
    reserved: 3,
    used: 20,
    role_max: -1,
    role_used: 10,
    database_max: -1,
    database_used: 15,
  },
  listening: 'proven',
  oldest: null,
  history: { missing: [], nodesAlive: 2 },
  cluster: {
    nodes: [{ host: 'web-1', roles: ['worker', 'scheduler'], state: 'active', clockMs: 20 }],
    led: ['scheduler', 'maintenance'],
    orphans: 0,
    hints: [],
  },
}

function find(name: string, facts: Partial<Facts>): Check {
  return judge({ ...sound, ...facts }).find((check) => check.name === name) as Check
}

const room = (change: Partial<Facts['room']>) => ({ room: { ...sound.room, ...change } })
const ledger = (change: Partial<Facts['ledger']>) => ({ ledger: { ...sound.ledger, ...change } })

describe('the judgement of the doctor', () => {
  it('finds nothing in sound facts, and has a fix for everything else', () => {
    expect(judge(sound).filter(({ state }) => state !== 'ok')).toEqual([])
    const sick: Facts = {
      ...sound,
      pooler: 'transaction',
      ...ledger({ pending: ['0003_more'] }),
      gaps: [{ object: 'job', missing: ['update'] }],
      clock: { aheadMs: 9_000, doubtMs: 1, machine: 'web-1' },
      ...room({ used: 97 }),
      listening: 'deaf',
      oldest: { who: 'process 7 (report, psql)', state: 'idle in transaction', age_ms: 600_000, query: null },
      cluster: {
        nodes: [{ host: 'web-2', roles: ['worker'], state: 'active', clockMs: -300_000 }],
        led: ['scheduler'],
        orphans: 3,
        hints: [{ what: 'dead rows', name: 'job', dead: 900_000, live: 10, bytes: 80_000_000 }],
      },
      history: { missing: ['2025-01-01'], nodesAlive: 1 },
    }
    const found = judge(sick).slice(2)
    expect(found.map(({ name }) => name)).toEqual([
      'pooler',
      'migrations',
      'privileges',
      'clock',
      'connections',
      'listen',
      'partitions',
      'transactions',
      'leaders',
      'node clocks',
      'leases',
      'storage',
    ])
    for (const check of found)
      expect(check, check.name).toMatchObject({ fix: expect.stringMatching(/\w{4}/) })
  })

  it('says what each kind of pooler means', () => {
    expect(find('pooler', { pooler: 'session' })).toMatchObject({ state: 'ok' })
    expect(find('pooler', { pooler: 'transaction' })).toMatchObject({ state: 'warn' })
    expect(find('listen', { pooler: 'transaction', listening: 'off' }).detail).toContain('pooler')
  })

  it('warns of a clock that is more than 2 s off, by the name of the machine, whichever way', () => {
    const clock = (aheadMs: number, doubtMs = 1) =>
      find('clock', { clock: { aheadMs, doubtMs, machine: 'web-1' } })
    expect(clock(1_900)).toMatchObject({ state: 'ok', detail: 'web-1 is 1.9 s behind the database' })
    expect(clock(2_500)).toMatchObject({ state: 'warn', detail: 'web-1 is 2.5 s behind the database' })
    expect(clock(-2_500)).toMatchObject({ state: 'warn', detail: 'web-1 is 2.5 s ahead of the database' })
    // A slow answer proves nothing.
    expect(clock(2_500, 1_000)).toMatchObject({ state: 'ok' })
  })

  it('says who leads nothing, whose clock is off, what lies without a lease, and where vacuum falls behind', () => {
    const cluster = (change: Partial<NonNullable<Facts['cluster']>>) => ({
      cluster: { ...(sound.cluster as NonNullable<Facts['cluster']>), ...change },
    })
    expect(find('leaders', cluster({ led: ['scheduler'] })).detail).toContain('nobody leads maintenance')
    expect(find('leaders', cluster({ nodes: [], led: [] }))).toMatchObject({ state: 'ok' })
    // They were asked to take nothing new: that nobody leads is as it should be.
    const draining = { host: 'web-9', roles: ['worker', 'scheduler'], state: 'draining', clockMs: 0 } as const
    expect(find('leaders', cluster({ nodes: [draining], led: [] }))).toMatchObject({ state: 'ok' })
    const node = { roles: ['worker'], state: 'active', clockMs: -300_000 } as const
    const clocks = find('node clocks', cluster({ nodes: [{ ...node, host: 'web-9' }] }))
    expect(clocks).toMatchObject({ state: 'warn', detail: 'web-9 300.0 s ahead' })
    expect(find('leases', cluster({ orphans: 2, nodes: [] })).fix).toContain('Start a node')
    const hints = [{ what: 'unused index', name: 'mine', dead: 0, live: 0, bytes: 90_000_000 } as const]
    expect(find('storage', cluster({ hints })).detail).toContain('index mine takes 90 MB')
    expect(judge({ ...sound, cluster: null }).some(({ name }) => name === 'leaders')).toBe(false)
  })

  it('counts the connections that are left under the lowest of all limits', () => {
    expect(find('connections', room({ used: 84 }))).toMatchObject({ state: 'ok' })
    expect(find('connections', room({ used: 90 })).detail).toContain('7 left')
    expect(find('connections', room({ role_max: 15 })).detail).toContain('5 left')
    expect(find('connections', room({ database_max: 16 }))).toMatchObject({ state: 'warn' })
  })

  it('tells pending, newer and foreign migrations apart', () => {
    const pending = find('migrations', ledger({ version: 1, pending: ['0002_jobs'] }))
    expect(pending).toMatchObject({ state: 'fail', fix: expect.stringContaining('forge migrate') })
    expect(find('migrations', ledger({ version: 3 }))).toMatchObject({ state: 'warn' })
    const failure = { code: 'FORGE_SCHEMA_TOO_NEW', message: 'Too new.' }
    expect(find('migrations', ledger({ version: 0, failure }))).toMatchObject({
      state: 'fail',
      detail: 'Too new.',
    })
  })

  it('asks for CREATE only while there is something to migrate', () => {
    expect(find('privileges', {})).toMatchObject({ state: 'ok' })
    const empty = ledger({ version: 0, pending: ['0001_cluster'] })
    expect(find('privileges', empty)).toMatchObject({ state: 'fail' })
    const owner = { role: { ...sound.role, create: true, usage: false } }
    expect(find('privileges', { ...empty, ...owner })).toMatchObject({ state: 'ok' })
  })

  it('names each missing privilege', () => {
    const gaps = [
      { object: 'job', missing: ['insert', 'update'] },
      { object: 'forge.job_history_prune()', missing: ['execute'] },
    ]
    expect(find('privileges', { gaps }).detail).toBe(
      'app lacks insert, update on job; execute on forge.job_history_prune()',
    )
    const stranger = { role: { ...sound.role, usage: false } }
    expect(find('privileges', stranger)).toMatchObject({
      state: 'fail',
      detail: 'app may not use schema forge',
    })
  })

  it('takes missing partitions for a failure only where a node should have made them', () => {
    const missing = ['2025-01-01']
    expect(find('partitions', { history: { missing, nodesAlive: 0 } })).toMatchObject({ state: 'warn' })
    expect(find('partitions', { history: { missing, nodesAlive: 1 } })).toMatchObject({ state: 'fail' })
    expect(find('partitions', { history: null })).toMatchObject({ state: 'warn' })
  })

  it('names a transaction that is open for more than 5 minutes', () => {
    const oldest = {
      who: 'process 7 (report, psql)',
      state: 'idle in transaction',
      age_ms: 299_000,
      query: null,
    }
    expect(find('transactions', { oldest })).toMatchObject({ state: 'ok' })
    const check = find('transactions', { oldest: { ...oldest, age_ms: 1_200_000 } })
    expect(check).toMatchObject({
      state: 'warn',
      detail: expect.stringContaining('process 7 (report, psql)'),
    })
    expect(check.detail).toContain('20 min')
  })
})
