/* The web process: the shop's pages and checkout, and forge's status page. It enqueues jobs and runs none. */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import express, { type NextFunction, type Request, type Response } from 'express'
import { forge, type ForgeNode } from 'forge'
import { z } from 'zod'
import { Board, viewOrders } from './board.ts'
import { pool, setUpTables } from './database.ts'
import { findOrder, orderInput, placeOrder, UnknownProduct } from './orders.ts'
import { endInOrder, reportReady, stopTimeout, terminalLogger } from './process.ts'

const host = '127.0.0.1'
const portDefault = 3000
const portTries = 50

const app = express()
app.disable('x-powered-by')
const server = createServer(app)
let node: ForgeNode | null = null
let board: Board | null = null

endInOrder(async () => {
  board?.stop()
  server.close()
  server.closeAllConnections()
  await node?.stop({ timeout: stopTimeout })
  await pool.end()
})

await setUpTables()
node = await forge.attach(app, pool, {
  roles: ['gateway'],
  dashboard: { title: 'Slow Pour' },
  logger: terminalLogger('web'),
})
board = new Board(node)
addRoutes(node, board)
reportReady({ port: await listen(server, Number(process.env.PORT || portDefault)) })

function addRoutes(running: ForgeNode, live: Board): void {
  app.use((_req, res, next) => {
    res.set({ 'content-security-policy': "default-src 'self'", 'x-content-type-options': 'nosniff' })
    next()
  })
  app.use(express.static(fileURLToPath(new URL('public', import.meta.url))))

  app.post('/orders', express.json({ limit: '20kb' }), async (req, res) => {
    const order = orderInput.safeParse(req.body)
    if (!order.success) {
      res.status(400).json({ error: z.prettifyError(order.error) })
      return
    }
    res.status(201).json(await placeOrder(running, order.data))
  })

  app.get('/orders/:id', async (req, res) => {
    const id = z.uuid().safeParse(req.params.id)
    const row = id.success ? await findOrder(id.data) : null
    if (row) res.json((await viewOrders(running, [row]))[0])
    else res.status(404).json({ error: 'There is no such order' })
  })

  app.get('/live', (_req, res) => live.watch(res))

  app.use((_req, res) => void res.status(404).json({ error: 'Not found' }))
  app.use(onError)
}

/** Express knows an error handler by its four parameters. */
function onError(error: unknown, _req: Request, res: Response, _next: NextFunction): void {
  if (error instanceof UnknownProduct) {
    res.status(400).json({ error: error.message })
    return
  }
  // A body that is no JSON, or too large: body-parser says which.
  const status = (error as { status?: number }).status ?? 500
  if (status >= 500) console.error(error)
  res.status(status).json({ error: status >= 500 ? 'Something went wrong' : (error as Error).message })
}

/** On the loopback only. A port that is taken makes way for the next one. */
async function listen(httpServer: Server, wanted: number): Promise<number> {
  for (let port = wanted; ; port++) {
    try {
      await new Promise<void>((resolve, reject) => {
        httpServer.once('error', reject)
        httpServer.listen(port, host, () => {
          httpServer.off('error', reject)
          resolve()
        })
      })
      return (httpServer.address() as AddressInfo).port
    } catch (error) {
      const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      if (!taken || port >= wanted + portTries) throw error
    }
  }
}
