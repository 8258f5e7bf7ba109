import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ForgeNode } from '../../src/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { hasBrowser, openBrowser, openPage } from './browser.js'

const database = useDatabase()
const hostile = `<script>document.title = 'owned'</script><img src=x onerror="document.title='owned'">`

describe.skipIf(!hasBrowser)('the status page in a browser', () => {
  let browser: Browser
  let server: Server
  let node: ForgeNode
  let base: string

  beforeAll(async () => {
    const { forge, pool } = setup(database)
    const app = express()
    const fails = forge.job('mail.fails', {
      retry: { attempts: 1 },
      run() {
        throw new Error(hostile)
      },
    })
    node = await forge.attach(app, pool, {
      logger: false,
      dashboard: { title: `Shop ${hostile}`.slice(0, 100) },
    })
    app.get('/embed', (_req, res) => void res.send('<iframe src="/forge"></iframe>'))
    server = createServer(app).listen(0, '127.0.0.1')
    await once(server, 'listening')
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    await (await fails.enqueue({})).result().catch(() => {})
    browser = await openBrowser()
  })
  afterAll(async () => {
    await browser.close()
    server.close()
    await node.stop()
  })

  it('shows node, queues, counts and the last failure, with its style, and without one complaint', async () => {
    const { page, complaints } = await openPage(browser, `${base}/forge`)
    const titles = ['Checks', 'Jobs', 'Last failures', 'Nodes', 'Queues']
    expect((await page.locator('h2').allTextContents()).sort()).toEqual(titles)
    const failures = page.locator('section', { hasText: 'Last failures' })
    expect(await failures.textContent()).toContain('mail.fails')
    expect(await failures.textContent()).toContain(hostile)
    expect(await page.locator('section', { hasText: 'Nodes' }).textContent()).toContain(node.id.slice(0, 8))
    // The style sheet is there: without it a table has no borders to speak of.
    expect(
      await page
        .locator('table')
        .first()
        .evaluate(
          (table) =>
            (
              globalThis as unknown as { getComputedStyle(of: unknown): { borderCollapse: string } }
            ).getComputedStyle(table).borderCollapse,
        ),
    ).toBe('collapse')
    expect(complaints).toEqual([])
  })

  it('runs nothing that a job or an option smuggles in', async () => {
    const { page } = await openPage(browser, `${base}/forge`)
    expect(await page.title()).not.toBe('owned')
    expect(await page.locator('script, img').count()).toBe(0)
  })

  it('cannot be framed by another page', async () => {
    const { page, complaints } = await openPage(browser, `${base}/embed`)
    expect(await page.frames()[1]?.locator('h2').count()).toBe(0)
    expect(complaints.join(' ')).toMatch(/frame/i)
  })
})
