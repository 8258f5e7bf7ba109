/* All scenarios, in the order in which they run and stand on the page. */
import { backlog, beside, drain, handlers, limits, long, snapshot } from './drain.mjs'
import { bulk, enqueue } from './enqueue.mjs'
import { latency, steady, urgent } from './latency.mjs'
import { idle } from './standing.mjs'
import { inputs } from './through.mjs'

export const scenarios = [
  enqueue,
  bulk,
  drain,
  latency,
  urgent,
  steady,
  backlog,
  beside,
  snapshot,
  long,
  handlers,
  limits,
  inputs,
  idle,
]
