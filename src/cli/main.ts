#!/usr/bin/env node
import { terminal } from './output.js'
import { run } from './run.js'

// Not process.exit(): what was written to a pipe still has to leave.
process.exitCode = await run(process.argv.slice(2), terminal)
