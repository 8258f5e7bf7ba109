import type { IncomingMessage } from 'node:http'
import { type Clock, type Logger, messageOf, within } from '../kernel/index.js'
import type { Access, Authorize } from './options.js'

/** The answer to one request. 'unavailable': the host's own check did not answer in time. */
export type Decision = Access | 'denied' | 'unavailable'

export interface Policy {
  readonly authorize: Authorize | null
  readonly development: boolean
  readonly clock: Clock
  readonly log: Logger
}

const answerMs = 5_000
/** A proxy, CDN or tunnel in front shows itself in one of these. */
const forwarding =
  /^(forwarded|via|x-forwarded(-.*)?|x-original-.*|x-(real|client|cluster-client)-ip|(true-)?client-ip|(cf|fly|fastly)-.*)$/

/** Asks the policy about one request. Never throws: whatever goes wrong denies. */
export async function decide(req: IncomingMessage, policy: Policy): Promise<Decision> {
  if (!policy.authorize) return policy.development && isLocal(req) ? 'operate' : 'denied'
  try {
    const asked = Promise.resolve(policy.authorize(req))
    const answer = await within(asked, { clock: policy.clock, ms: answerMs, late: () => new LateAnswer() })
    return answer === 'read' || answer === 'operate' ? answer : 'denied'
  } catch (error) {
    policy.log.warn(`forge: dashboard.authorize failed, the request is denied: ${messageOf(error)}`)
    return error instanceof LateAnswer ? 'unavailable' : 'denied'
  }
}

class LateAnswer extends Error {
  constructor() {
    super(`no answer within ${answerMs} ms`)
  }
}

/**
 * Development only: a loopback peer that speaks to a loopback name, and no sign of a proxy. A local proxy makes every
 * client look local, and DNS rebinding makes a foreign page look local; both show in the headers.
 */
function isLocal(req: IncomingMessage): boolean {
  const peer = req.socket.remoteAddress ?? ''
  if (!/^(127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/.test(peer)) return false
  if (Object.keys(req.headers).some((name) => forwarding.test(name))) return false
  return /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i.test(req.headers.host ?? '')
}
