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
  const { node, checks, counts, queues, nodes, failures } = data
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
<header><h1>${escape(about.title)}</h1><p>node <code>${escape(node.id.slice(0, 8))}</code> · version ${escape(node.version)} · ${escape(node.roles.join(', '))} · ${num(node.running)} running here</p></header>
<main>
<section><h2>Jobs</h2>
<dl>${counts.map(tile).join('')}</dl></section>
${section(
  'Checks',
  { check: 'text', state: 'state', detail: 'long' },
  checks.map((c) => [c.name, mark(c.ok), c.detail]),
)}
${section(
  'Queues',
  { queue: 'long', available: 'number', running: 'number', waiting: 'number' },
  queues.map((q) => [q.queue, num(q.available), num(q.running), num(q.waiting)]),
)}
${section(
  'Nodes',
  { node: 'id', host: 'text', pid: 'number', state: 'state', roles: 'long', 'last seen': 'text' },
  nodes.map((n) => [n.id.slice(0, 8), n.host, String(n.pid), n.state, n.roles.join(', '), when(n.seen)]),
)}
${section(
  'Last failures',
  { when: 'text', name: 'text', state: 'state', attempt: 'text', message: 'long', job: 'id' },
  failures.map((f) => [when(f.at), f.name, f.state, f.attempt, f.message, f.id]),
)}
</main>
</body>
</html>
`
}

/** How a column is set: `long` takes the room that is left and wraps. */
type Kind = 'text' | 'long' | 'number' | 'id' | 'state'

function section(
  title: string,
  columns: Readonly<Record<string, Kind>>,
  rows: readonly (readonly string[])[],
): string {
  const kinds = Object.values(columns)
  const head = Object.entries(columns)
    .map(([name, kind]) => `<th scope="col" class="${kind}">${escape(name)}</th>`)
    .join('')
  const body = rows
    .map((row) => `<tr>${row.map((text, index) => cell(text, kinds[index] ?? 'text')).join('')}</tr>`)
    .join('\n')
  const none = `<tr><td class="none" colspan="${kinds.length}">none</td></tr>`
  return `<section><h2>${escape(title)}</h2>
<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>
${body || none}
</tbody></table></div></section>`
}

function cell(text: string, kind: Kind): string {
  const inner = kind === 'state' ? `<span class="${toneOf(text)}">${escape(text)}</span>` : escape(text)
  return `<td class="${kind}">${inner}</td>`
}

function tile({ state, count }: PageData['counts'][number]): string {
  const tone = count === '0' ? 'zero' : toneOf(state)
  return `<div class="${tone}"><dt>${escape(state)}</dt><dd>${escape(count)}</dd></div>`
}

/** Colour only repeats what the word says. */
function toneOf(state: string): 'good' | 'bad' | 'late' | 'plain' {
  if (['ok', 'active'].includes(state)) return 'good'
  if (['not ok', 'dead', 'discarded', 'quarantined'].includes(state)) return 'bad'
  return ['retryable', 'draining'].includes(state) ? 'late' : 'plain'
}

/** ISO to something shorter; the zone is that of the ISO text, UTC. */
function when(iso: string): string {
  return iso.replace('T', ' ').replace(/(\.\d+)?Z$/, ' UTC')
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
:root {
  color-scheme: light dark; --ground: #f5f5f3; --paper: #fff; --ink: #1f2328; --soft: #636a72; --line: #dfe1e2;
  --good: #1f6f43; --late: #8a5700; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15171a; --paper: #1d2024; --ink: #e6e8ea; --soft: #9aa2ab; --line: #33383e;
    --good: #73c796; --late: #e6b04d; --bad: #f2857c;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.75rem clamp(1rem, 3vw, 2rem) 3rem; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
header p { color: var(--soft); margin: 0; }
h1 { font-size: 1.5rem; margin: 0; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .5rem; margin: 0; }
dl div { display: flex; flex-direction: column-reverse; padding: .55rem .8rem; background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; line-height: 1.3; }
.zero dd { color: var(--soft); font-weight: 400; }
.wide { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem; vertical-align: top; white-space: nowrap; }
tbody tr { border-top: 1px solid var(--line); }
th { font-weight: 600; font-size: .85rem; color: var(--soft); }
.number { text-align: right; }
.long { width: 100%; white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
td.id, code { font-family: ui-monospace, monospace; font-size: .9em; }
td.none { color: var(--soft); }
.good, .good dd { color: var(--good); } .late, .late dd { color: var(--late); } .bad, .bad dd { color: var(--bad); }
`
