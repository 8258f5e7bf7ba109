/** The only reader of process.env: everything else is told. */
export function environment(): Readonly<Record<string, string | undefined>> {
  return process.env
}

/** Development means NODE_ENV is 'development' or 'test'; anything else, unset included, counts as production. */
export function isDevelopment(): boolean {
  return ['development', 'test'].includes(process.env.NODE_ENV ?? '')
}
