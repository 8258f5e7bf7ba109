/** One finding of the doctor. */
export interface Check {
  readonly name: string
  readonly state: 'ok' | 'warn' | 'fail'
  readonly detail: string
  /** What to do about it; null when it is ok. */
  readonly fix: string | null
}

export function ok(name: string, detail: string): Check {
  return { name, state: 'ok', detail, fix: null }
}
