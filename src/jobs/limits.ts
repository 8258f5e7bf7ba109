import type { JobSpec } from './define.js'

/** The gates that a job passes before each run, in order; null for a job without limits. */
export function gatesOf(
  _spec: JobSpec,
  _about: { readonly queue: string; readonly key: string | undefined; readonly input: unknown },
): string[] | null {
  return null
}
