import { describe, expect, it } from 'vitest'
import { createServer } from 'node:http'
import express from 'express'
import type { PageData } from '../../src/host/index.js'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'
import { listen, page, routes } from './kit.js'

const database = useDatabase()

/** Text that becomes more than text on a page that is careless anywhere. */
// prettier-ignore
const corpus = [
  '<script>alert(1)</script>', '</td><script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<svg/onload=alert(1)>',
  '"><script>alert(1)</script>', "'><script>alert(1)</script>", '" onmouseover="alert(1)', "' onmouseover='alert(1)",
  '</title><script>alert(1)</script>', '</style><script>alert(1)</script>', '--><script>alert(1)</script>',
  '<!--', '<![CDATA[', '<?php', '<base href=//evil.example>', '<meta http-equiv=refresh content=0;url=//evil.example>',
  '<link rel=stylesheet href=//evil.example>', '<iframe srcdoc="<script>1</script>">', '<a href="javascript:alert(1)">x</a>',
  'javascript:alert(1)', 'data:text/html,<script>1</script>', '&lt;script&gt;', '&#x3c;script&#x3e;', '&amp;lt;', '${7*7}',
  '{{constructor.constructor("alert(1)")()}}', '<%= 7*7 %>', '`</span>`', '\u003cscript\u003e', '\u2028<script>\u2029',
  '<\0script>', '<scr\u0000ipt>', '<SCRIPT SRC=//evil.example>', '<style>*{display:none}</style>', '<div style=x:y>',
  '<math><mi//xlink:href="data:x,<script>1</script>">', '<details open ontoggle=alert(1)>', '<body onload=alert(1)>',
  '%3Cscript%3E', '\u202e<tpircs>', '<xss id=x tabindex=1 onfocus=alert(1)>', '<template><script>1</script></template>',
  '<object data="x">', '<embed src="x">', '<form action=//evil.example>', '<button formaction=//evil.example>', "$&$'$`",
  '\u00ad<script>', '<ScRiPt\n>', '<\u200bscript>', 'x'.repeat(5_000), '', ' ', '\n\n', '\t<b>', '\ud800<b>', '😀<b>',
] as const

/** Everything that a job, a machine or another process says, replaced. */
function hostilePage(text: string): PageData {
  return {
    node: { id: text, version: text, roles: [text], running: 1 },
    checks: [{ name: text, ok: true, detail: text }],
    nodes: [{ id: text, host: text, pid: 7, state: text, roles: [text], seen: text }],
    queues: [{ queue: text, available: 1, running: 2, waiting: 3 }],
    counts: [{ state: text, count: text }],
    failures: [{ id: text, name: text, state: text, attempt: text, message: text, at: text }],
  }
}

async function shownBy(data: PageData, title: string): Promise<string> {
  const handler = routes({ page: () => Promise.resolve(data), title })
  await using wire = await listen(createServer((req, res) => handler(req, res, () => {})))
  return (await wire.get('/')).body
}

/** Every tag and comment of a page, and where text lies: with harmless and with hostile text it must be the same. */
const skeleton = (html: string) =>
  html.match(/<[^>]*>?/g)?.map((tag) => tag.replace(/ class="(good|bad|late|plain|zero)"/, ''))

describe('the status page', () => {
  it('has the same tags whatever is shown on it, and no script, no style of its own and no handler', async () => {
    const harmless = skeleton(await shownBy(page, 'title'))
    expect(harmless?.length).toBeGreaterThan(100)
    for (const text of corpus) {
      const html = await shownBy(hostilePage(text), text || 'title')
      expect(skeleton(html), text).toEqual(harmless)
    }
    for (const tag of harmless ?? [])
      expect(tag).not.toMatch(/^<(script|style|iframe|object|base)|\s(on\w+|style|srcdoc)=/i)
    expect(harmless?.filter((tag) => /(href|src|action)=/.test(tag))).toEqual([
      '<link rel="icon" href="data:,">',
      '<link rel="stylesheet" href="/status.css">',
    ])
  })

  it('shows what hostile jobs threw as text', async () => {
    const { forge, pool } = setup(database)
    const app = express()
    const thrown = corpus.filter((text) => text.trim() !== '').slice(0, 10)
    const job = forge.job('hostile', {
      retry: { attempts: 1 },
      run: (index: number) => {
        throw Object.assign(new Error(thrown[index]), { name: thrown[index], code: thrown[index] })
      },
    })
    await using node = await forge.attach(app, pool, {
      dashboard: { authorize: () => 'read', title: corpus[0] },
    })
    const handles = await job.enqueueMany(thrown.map((_, index) => index))
    await Promise.allSettled(handles.map((handle) => handle.result()))
    expect((await node.jobs.counts()).discarded).toBe(thrown.length)
    await using wire = await listen(app)
    const { body, status } = await wire.get('/forge')
    expect(status).toBe(200)
    expect(body).toContain('&lt;img src=x onerror=alert(1)&gt;')
    expect(body).not.toMatch(/<script|<img|<svg|<style/i)
    await node.stop()
  })
})
