import { createServer, type RequestListener, type Server } from 'node:http'
import express from 'express'
import { type Handler, mount } from '../../src/host/index.js'

/** What the host itself answers where forge is not mounted. */
export const hostStatus = 418

export interface Host {
  /** Where forge is, from outside. */
  readonly at: string
  readonly make: (handler: Handler) => Server | RequestListener
}

/** The hosts that forge can be mounted on, each with something of its own before and after. */
export const hosts: Readonly<Record<string, Host>> = {
  'an Express app': {
    at: '/forge',
    make: (handler) => {
      const app = express()
      mount(app, '/forge', handler)
      return app.use((_req, res) => void res.status(hostStatus).end())
    },
  },
  'an Express app with parsers before and a catch-all route after': {
    at: '/forge',
    make: (handler) => {
      const app = express().use(express.json(), express.urlencoded({ extended: true }))
      mount(app, '/forge', handler)
      return app.all('/{*any}', (_req, res) => void res.status(hostStatus).end())
    },
  },
  'an Express app that is strict about case and slashes': {
    at: '/forge',
    make: (handler) => {
      const app = express().enable('case sensitive routing').enable('strict routing')
      mount(app, '/forge', handler)
      return app.use((_req, res) => void res.status(hostStatus).end())
    },
  },
  'a router below another path': {
    at: '/admin/tools/forge',
    make: (handler) => {
      const router = express.Router()
      mount(router, '/forge', handler)
      const app = express().use('/admin/tools', router)
      return app.use((_req, res) => void res.status(hostStatus).end())
    },
  },
  'a bare http server': {
    at: '/forge',
    make: (handler) => {
      const server = createServer((_req, res) => res.writeHead(hostStatus).end())
      mount(server, '/forge', handler)
      return server
    },
  },
}
