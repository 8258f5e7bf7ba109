import { expect } from 'vitest'
import type { TestDatabaseAccess } from '../support/database.js'

/** A wrong value: what it is, the code that refuses it, and what the message says is wrong or would be right. */
export type Case = readonly [what: string, given: unknown, code: string, says: RegExp]

/** The call rejects, or throws, with code and message of the case, and nothing is written. */
export async function expectRefusal(
  database: TestDatabaseAccess,
  call: () => unknown,
  [, , code, says]: Case,
): Promise<void> {
  const before = await rowCounts(database)
  await expect(Promise.resolve().then(call)).rejects.toMatchObject({
    code,
    message: expect.stringMatching(says) as string,
  })
  expect(await rowCounts(database)).toEqual(before)
}

/** Of everything that a call could write to. */
export function rowCounts(database: TestDatabaseAccess): Promise<unknown[]> {
  return database.query(
    `SELECT (SELECT count(*) FROM forge.job) AS jobs, (SELECT count(*) FROM forge.job_history) AS history,
            (SELECT count(*) FROM forge.job_lane) AS lanes, (SELECT count(*) FROM pg_namespace) AS schemas,
            (SELECT count(*) FROM forge.job WHERE cancel_at IS NOT NULL) AS marks`,
  )
}
