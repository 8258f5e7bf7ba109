import { appendFileSync } from 'node:fs'
import type { Reporter, TestModule } from 'vitest/node'

interface Counts {
  passed: number
  failed: number
  skipped: number
}

/**
 * Prints `N passed, N failed` as the last line of a run. A file that cannot be loaded and an error outside of any test count
 * as failed. `npm test` runs the suite more than once: it names a file in FORGE_TEST_COUNTS, gets the counts
 * there as one line of JSON, and prints their sum itself.
 */
export default class ClosingLineReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const counts: Counts = { passed: 0, failed: errors.length, skipped: 0 }
    for (const module of modules) {
      if (module.state() === 'failed' && module.errors().length > 0) counts.failed += 1
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        counts[state === 'passed' || state === 'failed' ? state : 'skipped'] += 1
      }
    }
    const file = process.env['FORGE_TEST_COUNTS']
    if (file) appendFileSync(file, `${JSON.stringify(counts)}\n`)
    else process.stdout.write(`\n${closingLine(counts)}\n`)
  }
}

function closingLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}
