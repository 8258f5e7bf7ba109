import { fileURLToPath } from 'node:url'
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config'
import ClosingLineReporter from './tooling/closing-line-reporter.js'

const endToEnd = 'test/e2e/**/*.test.ts'

const common = {
  environment: 'node',
  globalSetup: ['test/support/postgres-global.ts'],
  pool: 'forks',
  // Two cores, and each file brings databases and often processes of its own.
  maxWorkers: 2,
  testTimeout: 60_000,
  hookTimeout: 60_000,
} satisfies TestProjectInlineConfiguration['test']

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    reporters: ['default', new ClosingLineReporter()],
    projects: [
      {
        extends: true,
        test: { ...common, name: 'node', include: ['test/**/*.test.ts'], exclude: [endToEnd] },
      },
      // Afterwards: these install packages and compile, and would take the time from tests that measure some.
      { extends: true, test: { ...common, name: 'e2e', include: [endToEnd], sequence: { groupOrder: 1 } } },
    ],
  },
})
