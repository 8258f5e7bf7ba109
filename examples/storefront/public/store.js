/* The page: shows what the server's live view says, and places orders. Text goes in as text, never as HTML. */
import { money, showOrders } from './orders.js'

/**
 * @typedef {{ id: number, name: string, icon: string, priceCents: number, stock: number }} Product
 * @typedef {{ orders: number, paidCents: number, running: number, waiting: number, done: number }} Totals
 */

const burstSize = 20
const customers = [
  'Ada',
  'Edsger',
  'Grace',
  'Tony',
  'Barbara',
  'Donald',
  'Frances',
  'Alan',
  'Radia',
  'Niklaus',
]

/** Product id to quantity. */
const cart = new Map([[5, 1]])
/** @type {Product[]} */
let shelf = []

const find = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id))
const placeButton = /** @type {HTMLButtonElement} */ (find('place'))
const burstButton = /** @type {HTMLButtonElement} */ (find('burst'))

watch()
placeButton.addEventListener('click', () => void checkOut())
burstButton.addEventListener('click', () => void burst())

function watch() {
  const source = new EventSource('/live')
  const link = find('link')
  const say = (/** @type {string} */ state) => {
    link.textContent = state
    link.dataset.state = state
  }
  source.addEventListener('open', () => say('live'))
  source.addEventListener('error', () => say('reconnecting'))
  source.addEventListener('message', (event) => {
    const board = JSON.parse(event.data)
    shelf = board.products
    showShelf()
    showTotals(board.totals)
    showOrders(find('orders'), board.orders)
    find('empty').hidden = board.orders.length > 0
  })
}

function showTotals(/** @type {Totals} */ totals) {
  const number = (/** @type {number} */ value) => value.toLocaleString('en')
  find('total-orders').textContent = number(totals.orders)
  find('total-paid').textContent = money(totals.paidCents)
  find('total-running').textContent = number(totals.running)
  find('total-waiting').textContent = number(totals.waiting)
  find('total-done').textContent = number(totals.done)
}

function showShelf() {
  const list = find('products')
  for (const product of shelf) {
    const row = list.querySelector(`[data-id="${product.id}"]`) ?? addProduct(list, product)
    const quantity = cart.get(product.id) ?? 0
    text(row, '.detail', `${money(product.priceCents)} · ${product.stock} in stock`)
    text(row, 'output', String(quantity))
    const less = /** @type {HTMLButtonElement} */ (row.querySelector('.less'))
    less.disabled = quantity === 0
    row.classList.toggle('chosen', quantity > 0)
  }
  const cents = shelf.reduce((sum, product) => sum + product.priceCents * (cart.get(product.id) ?? 0), 0)
  placeButton.disabled = cents === 0
  placeButton.textContent = cents === 0 ? 'Choose something' : `Place order · ${money(cents)}`
}

function addProduct(/** @type {HTMLElement} */ list, /** @type {Product} */ product) {
  const template = /** @type {HTMLTemplateElement} */ (find('product'))
  const row = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true))
  row.dataset.id = String(product.id)
  row.querySelector('use')?.setAttribute('href', `/icons.svg#${product.icon}`)
  text(row, '.name', product.name)
  for (const [selector, change, label] of /** @type {const} */ ([
    ['.less', -1, 'Fewer'],
    ['.more', 1, 'More'],
  ])) {
    const button = row.querySelector(selector)
    button?.setAttribute('aria-label', `${label}: ${product.name}`)
    button?.addEventListener('click', () => {
      cart.set(product.id, Math.min(20, Math.max(0, (cart.get(product.id) ?? 0) + change)))
      showShelf()
    })
  }
  list.append(row)
  return row
}

function text(/** @type {Element} */ within, /** @type {string} */ selector, /** @type {string} */ value) {
  const element = within.querySelector(selector)
  if (element && element.textContent !== value) element.textContent = value
}

async function checkOut() {
  const items = [...cart].filter(([, quantity]) => quantity > 0)
  placeButton.disabled = true
  await say(() => place(items.map(([productId, quantity]) => ({ productId, quantity }))))
  showShelf()
}

async function burst() {
  burstButton.disabled = true
  await say(async () => {
    const placed = await Promise.all(Array.from({ length: burstSize }, () => place(randomItems())))
    return `${placed.length} orders placed.`
  })
  burstButton.disabled = false
}

async function say(/** @type {() => Promise<string>} */ action) {
  const answer = find('answer')
  try {
    answer.textContent = await action()
    answer.classList.remove('bad')
  } catch (error) {
    answer.textContent = /** @type {Error} */ (error).message
    answer.classList.add('bad')
  }
}

async function place(/** @type {{ productId: number, quantity: number }[]} */ items) {
  const response = await fetch('/orders', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ customer: pick(customers), items }),
  })
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.error)
  return `Order #${answer.number} is placed. Its jobs were written with it.`
}

function randomItems() {
  const count = 1 + Math.floor(Math.random() * 3)
  const chosen = new Set(Array.from({ length: count }, () => pick(shelf).id))
  return [...chosen].map((productId) => ({ productId, quantity: 1 + Math.floor(Math.random() * 2) }))
}

/**
 * @template T
 * @param {T[]} from
 * @returns {T}
 */
function pick(from) {
  return /** @type {T} */ (from[Math.floor(Math.random() * from.length)])
}
