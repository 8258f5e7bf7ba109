/**
 * kernel: what every room stands on. No I/O, no state: clocks, errors, aborts, durations, ids, the data gate, news,
 * the signals port and the checker of options.
 */
export { deferred, sleep, unlessAborted, within, type Deferred } from './abort.js'
export { backoffMs, type Backoff } from './backoff.js'
export { Bell } from './bell.js'
export { systemClock, type Clock, type Timer } from './clock.js'
export { durationMs, type Duration } from './duration.js'
export {
  AlreadyAttached,
  codeOf,
  DuplicateName,
  errorCatalogue,
  ForgeError,
  type ForgeErrorCode,
  isConnectionError,
  isForgeError,
  messageOf,
  NotAttached,
  undone,
} from './errors.js'
export { encodeForgiving, encodeStrict, isStorable, storable, storableText } from './gate.js'
export { idFactory, isUuid, mixIds, randomId } from './ids.js'
export { startAll, stopAll, type Service } from './lifecycle.js'
export { quietLogger, silentLogger, type Logger } from './log.js'
export { createNewsDesk, news, type NewsDesk } from './news.js'
export {
  asRecord,
  envName,
  invalidOption,
  isSpec,
  list,
  nearest,
  option,
  resolveOptions,
  splitList,
  unknownOption,
  type OptionTable,
  type Resolved,
} from './options.js'
export { LocalSignals, type Signals } from './signals.js'
