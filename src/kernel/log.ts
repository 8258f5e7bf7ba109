/** Where forge's own messages go: the shape of pino, winston and console, so that a host passes its own logger. */
export interface Logger {
  debug(message: string, fields?: Readonly<Record<string, unknown>>): void
  info(message: string, fields?: Readonly<Record<string, unknown>>): void
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void
  error(message: string, fields?: Readonly<Record<string, unknown>>): void
}

/**
 * The default: a guest does not print. What the host must know comes as a process warning, which Node shows on
 * stderr and which a host can silence or route with process.on('warning').
 */
export const quietLogger: Logger = {
  debug() {},
  info() {},
  warn: warning,
  error: warning,
}

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} }

function warning(message: string, fields?: Readonly<Record<string, unknown>>): void {
  const code = typeof fields?.code === 'string' ? fields.code : undefined
  process.emitWarning(message, { type: 'ForgeWarning', ...(code ? { code } : {}) })
}
