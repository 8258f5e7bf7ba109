/**
 * runtime: the small frozen record that every service is given, the options of the process, and the only reader of
 * the environment.
 */
export { environment, isDevelopment } from './environment.js'
export { Faults } from './faults.js'
export { checkCapability, runtimeOptions, type Role } from './options.js'
export { Registry } from './registry.js'
export { createRuntime, type Database, type Runtime, type RuntimeParts } from './runtime.js'
export type { Span } from './span.js'
