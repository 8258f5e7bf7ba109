import { accessOptions, type Authorize } from './access/index.js'
import { clusterOptions } from './cluster/index.js'
import { hostOptions } from './host/index.js'
import { jobsOptions } from './jobs/index.js'
import type { Duration, Logger, Resolved } from './kernel/index.js'
import { type Role, runtimeOptions } from './runtime/index.js'

/** Every option there is, with meaning, default and environment variable; docs/options.md is checked against it. */
export const optionTable = {
  ...runtimeOptions,
  ...clusterOptions,
  ...jobsOptions,
  ...accessOptions,
  ...hostOptions,
}

export type ResolvedOptions = Resolved<typeof optionTable>

/**
 * Options of `attach`. All are optional; each has an environment variable of its name (`FORGE_ROLES=worker`), which
 * counts where the option is not given. Meanings and defaults: docs/options.md.
 */
export interface AttachOptions {
  readonly roles?: readonly Role[]
  readonly schema?: string
  readonly migrate?: 'auto' | 'check' | 'off'
  readonly capabilities?: readonly string[]
  readonly logger?: Logger | false
  readonly signals?: boolean
  readonly startTimeout?: Duration
  readonly stopTimeout?: Duration
  readonly lease?: { readonly ms?: Duration; readonly renewMs?: Duration }
  readonly concurrency?: number
  readonly queues?: {
    readonly [queue: string]:
      { readonly concurrency?: number; readonly weight?: number; readonly limit?: number | null } | false
  }
  readonly retention?: { readonly completed?: Duration; readonly discarded?: Duration }
  readonly dashboard?: { readonly authorize?: Authorize; readonly title?: string }
  readonly path?: string
}
