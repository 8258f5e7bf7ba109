/** For a transaction of another library that was passed without its adapter: the adapter it needs, if it is known. */
export function adapterFor(given: unknown): string | null {
  if ((typeof given !== 'object' || given === null) && typeof given !== 'function') return null
  const it = given as Readonly<Record<string, unknown>>
  const has = (method: string): boolean => typeof it[method] === 'function'
  if (has('$queryRawUnsafe')) return 'fromPrisma'
  if (has('executeQuery') && typeof it.isTransaction === 'boolean') return 'fromKysely'
  if (has('execute') && typeof it._ === 'object' && has('transaction')) return 'fromDrizzle'
  if (has('raw') && typeof it.client === 'object' && has('transaction')) return 'fromKnex'
  // A manager, a query runner, a data source: each has a query(text, values) that answers in another shape.
  const isTypeOrm =
    has('createQueryRunner') || ('queryRunner' in it && has('query')) || 'isTransactionActive' in it
  return isTypeOrm ? 'fromTypeOrm' : null
}
