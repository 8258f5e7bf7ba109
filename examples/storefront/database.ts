import { readFile } from 'node:fs/promises'
import pg from 'pg'

/** The app's own pool, as in any Express app. forge makes its own connections from the same settings. */
export const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 20 })

// An idle connection that breaks is replaced by the next query; without a listener it would end the process.
pool.on('error', (error) => console.error(`storefront: a connection broke: ${error.message}`))

/** Any number that no other program uses on this database. */
const setUpLock = 7_367_001

/** Makes the shop's tables where they are missing. Web and worker start together, so they take turns. */
export async function setUpTables(): Promise<void> {
  const sql = await readFile(new URL('schema.sql', import.meta.url), 'utf8')
  const client = await pool.connect()
  try {
    await client.query('begin')
    await client.query('select pg_advisory_xact_lock($1)', [setUpLock])
    await client.query(sql)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback').catch(() => {})
    throw error
  } finally {
    client.release()
  }
}
