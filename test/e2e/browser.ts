import { existsSync } from 'node:fs'
import { type Browser, chromium, type Page } from 'playwright-core'

/** Debian's package, or wherever CHROMIUM_PATH says. */
const places = [
  process.env.CHROMIUM_PATH,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
]
const path = places.find((place) => place !== undefined && existsSync(place))

/** False only on a developer's machine without a browser; CI installs one, and fails without. */
export const hasBrowser = path !== undefined || process.env.CI === 'true'
if (!hasBrowser)
  process.stderr.write('No browser found: the tests of pages are SKIPPED. Install chromium to run them.\n')

export async function openBrowser(): Promise<Browser> {
  if (!path) throw new Error('No browser found. Install chromium, or set CHROMIUM_PATH.')
  return chromium.launch({
    executablePath: path,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

/** A page that keeps what the browser complained of: console errors, failed requests, violations of the policy. */
export async function openPage(browser: Browser, url: string): Promise<{ page: Page; complaints: string[] }> {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } })
  const complaints: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('requestfailed', (request) => complaints.push(`${request.url()} ${request.failure()?.errorText}`))
  await page.goto(url)
  return { page, complaints }
}
