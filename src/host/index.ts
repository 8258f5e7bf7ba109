/**
 * host: forge on somebody's HTTP app. One handler `(req, res, next)` serves Express 4 and 5, Nest on Express, and a
 * bare http.Server. It owns nothing of the app; one slot per app and path is reused.
 */
export { type Handler, type HostApp, mount, type UsableApp } from './mount.js'
export { stayAlive, stopOnSignals, warnOfSignals } from './process-signals.js'
export { hostOptions } from './options.js'
export { createRoutes, type NodeView } from './routes.js'
export type { PageData } from './status-page.js'
