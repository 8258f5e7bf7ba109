/*
 * What an app does with forge from start to end. Prints one line of JSON: what it saw. It never calls process.exit: when
 * forge leaves a timer, a connection or a thread behind, the process stays and the test says so.
 */
const { once } = require('node:events')
const pg = require('pg')

/**
 * `listen` starts the host's server and gives it back, `close` ends it. The job is defined before attach and enqueued
 * while forge starts, as the README does it.
 */
exports.exercise = async function exercise({ forge, app, listen, close = closeServer }) {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 2 })
  const double = forge.job('consumer.double', {
    async run(input) {
      return { doubled: input.n * 2, node: process.version }
    },
  })

  // Without its file beside the bundle, the pulse would fall back to the main loop and only health would tell.
  let threads = 0
  process.on('worker', () => (threads += 1))

  const attaching = forge.attach(app, pool)
  const server = await listen()
  const node = await attaching
  const ask = async (path) => {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { redirect: 'manual' })
    await answer.arrayBuffer()
    return answer.status
  }

  const seen = { node: process.version, own: await ask('/own'), live: await ask('/forge/live') }
  seen.ready = await ask('/forge/ready')
  seen.page = await ask('/forge')
  const handle = await double.enqueue({ n: 21 })
  seen.result = await handle.result({ timeout: '20s' })
  seen.health = await node.health()
  seen.threads = threads
  seen.shared = globalThis[Symbol.for('forge/1')] === forge

  await node.stop()
  await close(server)
  await pool.end()
  process.stdout.write(`${JSON.stringify(seen)}\n`)
}

async function closeServer(server) {
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
}

/** Listens on a free port of an Express app. */
exports.listenOn = (app) => async () => {
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
