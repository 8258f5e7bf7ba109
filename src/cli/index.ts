/**
 * cli: the command `forge`, for people and for deploy scripts.
 *
 * Model: one call is one pipeline: arguments → a station (connections of its own, no lease and no node) → one command,
 * which gives an answer → one print. An answer is an exit code, text for people, and a document for `--json`.
 *
 * When things fail: whatever is thrown becomes one message that says what to do, and one exit code. Of a connection
 * string only user, host, port and database are ever shown.
 */
export { run } from './run.js'
