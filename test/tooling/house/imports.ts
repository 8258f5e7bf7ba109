import path from 'node:path/posix'
import {
  doors,
  forbiddenFolders,
  oneRoomPackages,
  outsideFiles,
  packageRooms,
  rooms,
  separatePrograms,
} from './layout.js'
import { type Import, resolveImport, type Source, type Violation } from './source.js'

function isRelative({ specifier }: Import): boolean {
  return specifier.startsWith('.')
}

function violation(rule: string, source: Source, message: string, line = 1): Violation {
  return { rule, file: source.file, line, message }
}

/** Rooms are known folders with a face; src holds nothing else. */
export function checkRooms(sources: readonly Source[]): Violation[] {
  const found: Violation[] = []
  const files = new Set(sources.map(({ file }) => file))
  for (const source of sources) {
    const { file, room } = source
    if (!rooms[room]) found.push(violation('rooms', source, `${room} is no room of the list`))
    else if (!room.endsWith('.ts') && !files.has(`src/${room}/index.ts`)) {
      found.push(violation('rooms', source, `src/${room} has no face (index.ts)`))
    }
    for (const folder of path.dirname(file).split('/')) {
      if (forbiddenFolders.some((name) => name === folder)) {
        found.push(violation('rooms', source, `a folder is a capability, and ${folder} is none`))
      }
    }
  }
  return found
}

/** A room imports only lower floors, only through their index.ts; inside a room, siblings and never the own face. */
export function checkFloors(sources: readonly Source[]): Violation[] {
  const files = new Set(sources.map(({ file }) => file))
  return sources.flatMap((source) =>
    source.imports.filter(isRelative).flatMap((imported) => {
      const target = resolveImport(source.file, imported.specifier)
      if (outsideFiles.some((file) => file === target)) return []
      const fault = files.has(target) ? floorFault(source, target) : `${target} does not exist`
      return fault ? [violation('floors', source, fault, imported.line)] : []
    }),
  )
}

function floorFault(source: Source, target: string): string | undefined {
  if (separatePrograms.some(({ file }) => file === source.file))
    return 'a separate program imports nothing of the house'
  const room = target.split('/')[1] ?? ''
  const face = room.endsWith('.ts') ? `src/${room}` : `src/${room}/index.ts`
  if (room === source.room) {
    return target === face ? `inside ${room} import the sibling, not the own face` : undefined
  }
  const [from, to] = [rooms[source.room], rooms[room]]
  if (!from || !to) return undefined // Said by checkRooms.
  if (target !== face) return `${room} is used through ${face} only`
  if (to.floor >= from.floor)
    return `${source.room} stands on floor ${from.floor}, ${room} on ${to.floor}: not below`
  if (to.side && !from.side) return `${room} is a side room: no floor uses it`
  return undefined
}

/** What stands behind a door is imported by its keepers only. */
export function checkDoors(sources: readonly Source[]): Violation[] {
  return sources.flatMap((source) =>
    source.imports.filter(isRelative).flatMap((imported) => {
      const target = resolveImport(source.file, imported.specifier)
      const door = doors.find(({ to }) => to.includes(target))
      if (!door || door.by.includes(source.file)) return []
      return [violation('doors', source, `${target} is reached through ${door.by[0] ?? ''}`, imported.line)]
    }),
  )
}

/** No cycles at all, between files, type imports included. */
export function checkCycles(sources: readonly Source[]): Violation[] {
  const byFile = new Map(sources.map((source) => [source.file, source]))
  const done = new Set<string>()
  const found: Violation[] = []

  const visit = (source: Source, above: readonly string[]): void => {
    const start = above.indexOf(source.file)
    if (start >= 0) {
      found.push(violation('cycles', source, [...above.slice(start), source.file].join(' -> ')))
      return
    }
    if (done.has(source.file)) return
    for (const imported of source.imports.filter(isRelative)) {
      const next = byFile.get(resolveImport(source.file, imported.specifier))
      if (next) visit(next, [...above, source.file])
    }
    done.add(source.file)
  }

  for (const source of sources) visit(source, [])
  return found
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

function roomsOf(name: string): readonly string[] {
  return packageRooms[name] ?? packageRooms[`${name.split('/')[0]}/*`] ?? []
}

/** Each third-party package is named in the room that keeps it; built-in modules are free, by their node: name. */
export function checkPackages(sources: readonly Source[]): Violation[] {
  const single = sources.flatMap((source) =>
    source.imports
      .filter((imported) => !isRelative(imported))
      .flatMap((imported) => {
        const fault = packageFault(source, imported.specifier)
        return fault ? [violation('packages', source, fault, imported.line)] : []
      }),
  )
  return [...single, ...checkSharedPackages(sources)]
}

function packageFault({ file, room }: Source, specifier: string): string | undefined {
  const program = separatePrograms.find((separate) => separate.file === file)
  if (program) {
    return program.modules.includes(specifier)
      ? undefined
      : `${specifier}: only ${program.modules.join(', ')} here`
  }
  const allowed = roomsOf(packageOf(specifier))
  if (specifier.startsWith('node:') || allowed.includes(room)) return undefined
  return `${packageOf(specifier)} is named ${allowed.length > 0 ? `only in ${allowed.join(' or ')}` : 'nowhere'}`
}

function checkSharedPackages(sources: readonly Source[]): Violation[] {
  return oneRoomPackages.flatMap((name) => {
    const users = sources.filter(({ imports }) =>
      imports.some(({ specifier }) => packageOf(specifier) === name),
    )
    const [first] = users
    return users
      .filter(({ room }) => room !== first?.room)
      .map((source) => violation('packages', source, `${name} is named in ${first?.room} already`))
  })
}
