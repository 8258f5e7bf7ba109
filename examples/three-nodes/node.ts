/* One node of three: the whole app. */
import { forge } from 'forge'
import pg from 'pg'

const name = process.env.NODE_NAME ?? 'node'

forge.cron(
  'beat',
  { every: '5s' },
  {
    // A tick that comes due while nobody leads is not left out.
    missed: 'all',
    run: ({ scheduledFor, late }) =>
      console.log(
        `${name} runs the tick of ${scheduledFor.toISOString().slice(11, 19)}, fired ${late} ms late`,
      ),
  },
)

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
pool.on('error', () => {})
const node = await forge.attach(null, pool, { roles: ['worker', 'scheduler'] })
process.send?.({ node: node.id })

let ending = false
/** Told by the process that started this one; it is also the end when that one is gone. */
function end(): void {
  if (ending) return
  ending = true
  void node
    .stop({ timeout: '2s' })
    .then(() => pool.end())
    .finally(() => process.exit())
}
process.on('SIGTERM', end)
process.on('disconnect', end)
// Ctrl-C reaches all processes of a terminal: the end is left to the one that started this.
process.on('SIGINT', () => {})
