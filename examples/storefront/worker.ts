/* The worker process: runs the jobs, without HTTP. Start as many of these as you like, on as many machines. */
import { forge, type ForgeNode } from 'forge'
import { pool, setUpTables } from './database.ts'
import './jobs.ts'
import { endInOrder, reportReady, stopTimeout, terminalLogger } from './process.ts'

let node: ForgeNode | null = null

endInOrder(async () => {
  await node?.stop({ timeout: stopTimeout })
  await pool.end()
})

await setUpTables()
node = await forge.attach(null, pool, { roles: ['worker'], logger: terminalLogger('worker') })
reportReady()
