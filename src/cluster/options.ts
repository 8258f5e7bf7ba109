import { option } from '../kernel/index.js'

/** Options of the lease. */
export const clusterOptions = {
  lease: {
    ms: option.duration({
      doc: 'How long a node counts as alive after its last renewal. Shorter finds dead nodes sooner and forgives shorter stalls.',
      default: 10_000,
      shows: "'10s'",
      min: 500,
    }),
    renewMs: option.duration({
      doc: 'How often the lease is renewed, and expired ones looked for. At most a third of lease.ms.',
      default: 3_000,
      shows: "'3s'",
      min: 100,
    }),
  },
}

/** A node trusts its own lease only for so long after it sent the renewal; the rest is margin to stop in. */
export const trustShare = 0.8

/** How long the main loop may stand still before the pulse thread lets the lease go. */
export const frozenMsMax = 60_000
