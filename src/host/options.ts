import { invalidOption, option } from '../kernel/index.js'

/** Options of mounting. */
export const hostOptions = {
  path: option.custom({
    doc: 'Where the pages and probes are mounted on the app.',
    default: '/forge',
    shows: "'/forge'",
    fromText: (text) => text,
    read: (value, name) => {
      if (typeof value === 'string' && /^(\/[A-Za-z0-9_-]+){1,8}$/.test(value) && value.length <= 200)
        return value
      throw invalidOption(
        name,
        "must be a path such as '/forge': segments of letters, digits, dashes, no slash at the end",
      )
    },
  }),
}
