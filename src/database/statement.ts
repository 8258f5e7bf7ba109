/**
 * One SQL statement: its name is also its prepared name on the connection, its text is made per schema.
 * Statements stand only in `queries.ts` files and folders; a test prepares each of them against the migrated schema.
 */
export interface Statement<Row = Record<string, unknown>> {
  readonly name: string
  /** `schema` is the quoted schema name. */
  readonly text: (schema: string) => string
  /** True: planned anew for the values of each call, so that conditions which are null this time cost nothing. */
  readonly unprepared?: boolean
  /** Only a carrier of the row's type; never set. */
  readonly row?: Row
}

/** What a statement's rows are. */
export type RowOf<S> = S extends Statement<infer Row> ? Row : never

/** `name` is at most 63 bytes and unique: PostgreSQL cuts longer prepared names, and two would then collide. */
export function statement<Row = Record<string, unknown>>(
  name: string,
  text: (schema: string) => string,
): Statement<Row> {
  return { name, text }
}

/** The same for questions of many shapes that are asked now and then: never prepared. */
export function unprepared<Row>(one: Statement<Row>): Statement<Row> {
  return { ...one, unprepared: true }
}
