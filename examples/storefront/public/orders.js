/* The list of orders. Rows are kept and changed in place, so that a bar that grows is seen growing. */

/**
 * @typedef {{ state: string, percent: number | null, note: string, attempt: number, attempts: number,
 *   retryAt: number | null, crashes: number }} Step
 * @typedef {{ id: string, number: number, customer: string, totalCents: number, placedAt: number,
 *   items: { name: string, quantity: number }[], steps: Record<string, Step> }} Order
 */

const euros = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' })

export function money(/** @type {number} */ cents) {
  return euros.format(cents / 100)
}

/** What the page showed last, so that times can go on between two views. */
let shown = /** @type {Order[]} */ ([])
let list = /** @type {HTMLElement | null} */ (null)

setInterval(() => list && showOrders(list, shown), 1_000)

export function showOrders(/** @type {HTMLElement} */ into, /** @type {Order[]} */ orders) {
  list = into
  shown = orders
  const rows = new Map([...into.children].map((row) => [/** @type {HTMLElement} */ (row).dataset.id, row]))
  const first = rows.size === 0
  orders.forEach((order, index) => {
    const row = rows.get(order.id) ?? addOrder(order, first)
    rows.delete(order.id)
    if (into.children[index] !== row) into.insertBefore(row, into.children[index] ?? null)
    showOrder(row, order)
  })
  for (const row of rows.values()) row.remove()
}

function clone(/** @type {string} */ id) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id))
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true))
}

function addOrder(/** @type {Order} */ order, /** @type {boolean} */ first) {
  const row = clone('order')
  row.dataset.id = order.id
  if (!first) row.classList.add('new')
  put(row, '.number', `#${order.number}`)
  put(row, '.customer', order.customer)
  put(
    row,
    '.items',
    order.items
      .map((item) => (item.quantity > 1 ? `${item.quantity} × ${item.name}` : item.name))
      .join(' · '),
  )
  put(row, '.sum', money(order.totalCents))
  for (const name of Object.keys(order.steps)) {
    const step = clone('step')
    step.dataset.step = name
    put(step, '.title', name)
    row.querySelector('.steps')?.append(step)
  }
  return row
}

function showOrder(/** @type {Element} */ row, /** @type {Order} */ order) {
  put(row, '.age', age(order.placedAt))
  for (const [name, step] of Object.entries(order.steps)) {
    const cell = /** @type {HTMLElement} */ (row.querySelector(`[data-step="${name}"]`))
    cell.dataset.state = step.state
    cell.title = step.note
    put(cell, '.note', describe(step))
    const unknown = step.state === 'running' && step.percent === null
    cell.dataset.known = unknown ? 'no' : 'yes'
    const fill = /** @type {HTMLElement} */ (cell.querySelector('.fill'))
    fill.style.inlineSize = `${step.state === 'done' || unknown ? 100 : (step.percent ?? 0)}%`
  }
}

function describe(/** @type {Step} */ step) {
  const again = step.crashes > 0 ? ', after a crash' : step.attempt > 1 ? `, attempt ${step.attempt}` : ''
  switch (step.state) {
    case 'running':
      return step.percent === null || !step.note
        ? `running${again}`
        : `${step.note}, ${Math.round(step.percent)} %`
    case 'retrying': {
      const seconds = Math.max(0, Math.ceil(((step.retryAt ?? 0) - Date.now()) / 1_000))
      return `again in ${seconds} s: ${step.note || 'failed'}`
    }
    case 'done':
      return `done${again}`
    case 'failed':
      return `given up: ${step.note}`
    default:
      return `waiting${again}`
  }
}

function age(/** @type {number} */ placedAt) {
  const seconds = Math.max(0, Math.round((Date.now() - placedAt) / 1_000))
  if (seconds < 5) return 'now'
  if (seconds < 60) return `${seconds} s ago`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`
  return new Date(placedAt).toLocaleString([], { dateStyle: 'short', timeStyle: 'short' })
}

function put(/** @type {Element} */ within, /** @type {string} */ selector, /** @type {string} */ value) {
  const element = within.querySelector(selector)
  if (element && element.textContent !== value) element.textContent = value
}
