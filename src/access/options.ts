import type { IncomingMessage } from 'node:http'
import { invalidOption, option } from '../kernel/index.js'

/** What an authorized person may do: look, or also change things. */
export type Access = 'read' | 'operate'

/** Decides for each request; anything but 'read' or 'operate' denies, and so does a throw or a hang. */
export type Authorize = (req: IncomingMessage) => false | Access | Promise<false | Access>

/** Options of the access policy. */
export const accessOptions = {
  dashboard: {
    authorize: option.custom<Authorize | null>({
      doc: "Who may see the pages under `path`: (req) => false | 'read' | 'operate'. Without it only a loopback peer in development.",
      default: null,
      shows: 'loopback in development, nobody elsewhere',
      read: (value, name) => {
        if (typeof value !== 'function') throw notFunction(name)
        return value as Authorize
      },
    }),
    title: option.custom({
      doc: 'The name of the app on the pages; 1 to 100 characters.',
      default: 'forge',
      shows: "'forge'",
      fromText: (text) => text,
      read: (value, name) => {
        if (typeof value === 'string' && value.length >= 1 && value.length <= 100) return value
        throw invalidOption(name, 'must be text of 1 to 100 characters')
      },
    }),
  },
}

function notFunction(name: string): Error {
  return invalidOption(name, "must be a function (req) => false | 'read' | 'operate'")
}
