import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { useDatabase } from '../support/database.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const script = path.join(root, 'test/bench/bench.mjs')
const run = promisify(execFile)
const database = useDatabase({ migrated: false })
let folder = ''
/** A run builds first where that is needed, and starts processes one after the other: 20 s on a quiet machine. */
const msMax = 170_000

/** The shortest run: its figures mean nothing. */
async function bench(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const env = { ...process.env, DATABASE_URL: inject('forgeDatabases').adminUrl }
  return run(process.execPath, [script, '--reps', '1', '--scale', '0.001', ...args], { env, timeout: msMax })
}

interface Row {
  readonly kind: string
  readonly scenario: string
  readonly point: string
  readonly system: string
  readonly error?: string
  readonly values?: { readonly done?: number; readonly rate: number; readonly tenths?: readonly number[] }
}

async function rowsOf(file: string): Promise<Row[]> {
  const lines = (await readFile(file, 'utf8')).trim().split('\n')
  return lines.map((line) => JSON.parse(line) as Row)
}

describe('npm run bench', () => {
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'forge-bench-test-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  it('measures the chosen scenarios, compares, and leaves no database behind', async () => {
    const out = path.join(folder, 'rows.jsonl')
    const points = 'calls of 5,000,2 processes,1,000,000'
    const { stdout } = await bench('bulk', 'drain', 'long', '--points', points, '--out', out)
    const [first, ...rows] = await rowsOf(out)
    expect(first?.kind).toBe('run')
    expect(rows.map(({ scenario, point, system }) => `${scenario}, ${point}: ${system}`)).toEqual([
      'bulk, calls of 5,000: forge',
      'bulk, calls of 5,000: plain SQL',
      'drain, 2 processes: forge',
      'drain, 2 processes: plain SQL',
      'long, 1,000,000: forge',
      'long, 1,000,000: plain SQL',
    ])
    expect(rows.filter(({ error }) => error)).toEqual([])
    for (const { values } of rows) expect(values?.rate).toBeGreaterThan(0)
    for (const { values } of rows.slice(4))
      expect([values?.done, values?.tenths?.length]).toEqual([1_000, 10])
    expect(stdout).toContain('A million in one go, 1,000,000: last/first tenth')
    const left = await database.query(`select datname from pg_database where datname like 'forge_bench_%'`)
    expect(left).toEqual([])
  }, 180_000)

  it('prints the table of an earlier run', async () => {
    const { stdout } = await bench('--from', path.join(folder, 'rows.jsonl'))
    expect(stdout).toContain('Bulk enqueue')
  })

  it.each([
    [['drian'], 'There is no scenario drian.'],
    [['--reps', '0'], '--reps is a whole number from 1.'],
    [['--scale', '2'], '--scale is above 0 and at most 1.'],
    [['--systems', 'forge,kafka'], 'There is no system kafka.'],
    [['bulk', '--points', '2 processes'], 'There is no point 2 processes; there are: calls of 5,000.'],
    [['--nosuch'], '--nosuch'],
  ])('refuses %s', async (args, message) => {
    await expect(bench(...args)).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringContaining(message) as string,
    })
  })
})
