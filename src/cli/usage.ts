/** A call that cannot be understood. */
export class UsageError extends Error {
  constructor(message: string) {
    super(`${message} See forge --help.`)
    this.name = 'UsageError'
  }
}
