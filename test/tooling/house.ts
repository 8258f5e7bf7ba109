import { checkParameters, checkSizes, measure, type Sizes } from './house/budgets.js'
import { checkCycles, checkDoors, checkFloors, checkPackages, checkRooms } from './house/imports.js'
import { readSource, type Violation } from './house/source.js'
import { checkSql } from './house/sql.js'
import { checkClock, checkConsole, checkEnvironment, checkGenerated } from './house/text.js'

export type Tree = Readonly<Record<string, string>>

/** Judges sources, given as file name (`src/jobs/claim.ts`) and text, by the rules that the layout writes down as data. */
export function checkHouse(tree: Tree): Violation[] {
  const sources = Object.entries(tree).map(([file, text]) => readSource(file, text))
  const written = sources.filter(({ generated }) => !generated)
  return [
    ...checkRooms(sources),
    ...checkFloors(sources),
    ...checkDoors(sources),
    ...checkCycles(sources),
    ...checkPackages(sources),
    ...sources.flatMap(checkGenerated),
    ...sources.flatMap(checkEnvironment),
    ...sources.flatMap(checkConsole),
    ...sources.flatMap(checkClock),
    ...written.flatMap(checkSql),
    ...written.flatMap(checkSizes),
    ...written.flatMap(checkParameters),
  ]
}

export function measureHouse(tree: Tree): Sizes {
  return measure(Object.entries(tree).map(([file, text]) => readSource(file, text)))
}
