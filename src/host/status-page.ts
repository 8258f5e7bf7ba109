/** What the status page shows. All text is untrusted: names, messages and hosts come from jobs and machines. */
export interface PageData {
  readonly node: {
    readonly id: string
    readonly version: string
    readonly roles: readonly string[]
    readonly running: number
  }
  readonly checks: readonly { readonly name: string; readonly ok: boolean; readonly detail: string }[]
  readonly nodes: readonly {
    readonly id: string
    readonly host: string
    readonly pid: number
    readonly state: string
    readonly roles: readonly string[]
    readonly seen: string
  }[]
  readonly queues: readonly {
    readonly queue: string
    readonly available: number
    readonly running: number
    readonly waiting: number
  }[]
  readonly counts: readonly { readonly state: string; readonly count: string }[]
  readonly failures: readonly {
    readonly id: string
    readonly name: string
    readonly state: string
    readonly attempt: string
    readonly message: string
    readonly at: string
  }[]
}

/** One plain page: no script, no inline style, refreshed by the browser every five seconds. */
export function statusPage(
  data: PageData,
  about: { readonly title: string; readonly mount: string },
): string {
  const mount = escape(about.mount)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>${escape(about.title)} · status</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${mount}/status.css">
</head>
<body>
<header><h1>${escape(about.title)}</h1><p>node <code>${escape(data.node.id.slice(0, 8))}</code> · version ${escape(data.node.version)} · ${escape(data.node.roles.join(', '))} · ${data.node.running} running here</p></header>
<main>
${section(
  'Checks',
  ['check', 'state', 'detail'],
  data.checks.map((c) => [c.name, mark(c.ok), c.detail]),
)}
${section(
  'Jobs',
  ['state', 'jobs'],
  data.counts.map((c) => [c.state, c.count]),
)}
${section(
  'Queues',
  ['queue', 'available', 'running', 'waiting'],
  data.queues.map((q) => [q.queue, num(q.available), num(q.running), num(q.waiting)]),
)}
${section(
  'Nodes',
  ['node', 'host', 'pid', 'state', 'roles', 'last seen'],
  data.nodes.map((n) => [n.id.slice(0, 8), n.host, String(n.pid), n.state, n.roles.join(', '), n.seen]),
)}
${section(
  'Last failures',
  ['job', 'name', 'state', 'attempt', 'message', 'when'],
  data.failures.map((f) => [f.id, f.name, f.state, f.attempt, f.message, f.at]),
)}
</main>
</body>
</html>
`
}

function section(title: string, heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const head = heads.map((cell) => `<th scope="col">${escape(cell)}</th>`).join('')
  const body = rows
    .map((row) => `<tr>${row.map((cell) => `<td>${escape(cell)}</td>`).join('')}</tr>`)
    .join('\n')
  const none = `<tr><td colspan="${heads.length}">none</td></tr>`
  return `<section><h2>${escape(title)}</h2>
<table><thead><tr>${head}</tr></thead><tbody>
${body || none}
</tbody></table></section>`
}

const mark = (ok: boolean): string => (ok ? 'ok' : 'not ok')
const num = (value: number): string => value.toLocaleString('en')

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => entities[char] as string)
}

export const statusCss = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 15px/1.5 system-ui, sans-serif; }
header p { color: color-mix(in srgb, currentColor 65%, transparent); margin: 0; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
section { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
code { font-family: ui-monospace, monospace; }
`
