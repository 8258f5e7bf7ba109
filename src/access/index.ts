/**
 * access: who may do what. Nothing is open by default: without `dashboard.authorize` only a loopback peer in
 * development is let in. Every request is asked for anew; a policy that throws, hangs or says anything unexpected
 * denies.
 */
export { accessOptions, type Access, type Authorize } from './options.js'
export { decide, type Policy } from './policy.js'
