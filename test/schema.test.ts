import { expect, test } from 'vitest'
import { useDatabase } from './support/database.js'

const database = useDatabase()

/** Everything in the schema but partitions, which come and go. NOT NULL constraints are columns' own: 18 names them. */
const parts = {
  tables: `
    SELECT c.relname AS name, CASE c.relkind WHEN 'p' THEN 'partitioned ' || pg_get_partkeydef(c.oid) ELSE 'table' END AS kind,
           coalesce(array_to_string(c.reloptions, ', '), '') AS options
    FROM pg_class c WHERE c.relnamespace = 'forge'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition`,
  columns: `
    SELECT c.relname AS name, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
           CASE WHEN a.attnotnull THEN 'not null' ELSE 'null' END AS null,
           concat_ws(' ', 'default ' || pg_get_expr(d.adbin, d.adrelid),
                     CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
                     CASE a.attgenerated WHEN 's' THEN 'generated stored' WHEN 'v' THEN 'generated virtual' END) AS value
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'forge'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
    ORDER BY 1, a.attnum`,
  constraints: `
    SELECT c.relname AS name, k.conname AS constraint, pg_get_constraintdef(k.oid) AS definition
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = 'forge'::regnamespace AND NOT c.relispartition AND k.contype <> 'n'`,
  indexes: `
    SELECT t.relname AS name, pg_get_indexdef(i.indexrelid) AS definition
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relnamespace = 'forge'::regnamespace AND NOT t.relispartition`,
  functions: `
    SELECT p.oid::regprocedure::text AS name, pg_get_function_result(p.oid) AS result, l.lanname AS language,
           CASE WHEN p.prosecdef THEN 'security definer' ELSE 'security invoker' END AS security,
           coalesce(array_to_string(p.proconfig, '; '), 'no settings') AS settings,
           CASE WHEN has_function_privilege('public', p.oid, 'execute') THEN 'all may call' ELSE 'owner may call' END AS callers,
           'body ' || md5(p.prosrc) AS body
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'forge'::regnamespace`,
  triggers: `
    SELECT t.tgrelid::regclass::text AS name, pg_get_triggerdef(t.oid) AS definition
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'forge'::regnamespace AND NOT t.tgisinternal AND NOT c.relispartition`,
  others: `
    SELECT c.relname AS name, CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE c.relkind::text END AS kind
    FROM pg_class c WHERE c.relnamespace = 'forge'::regnamespace AND c.relkind NOT IN ('r', 'p', 'i', 'I', 't')`,
}

async function describeSchema(): Promise<string> {
  const sections: string[] = []
  for (const [title, sql] of Object.entries(parts)) {
    const rows = await database.query<Record<string, string>>(sql)
    const lines = rows.map((row) => Object.values(row).filter(Boolean).join(' | '))
    // Here, since each database collates in its own way; columns are in their order.
    if (title !== 'columns') lines.sort()
    sections.push([`# ${title}`, ...lines].join('\n'))
  }
  return `${sections.join('\n\n')}\n`
}

test('the migrated schema is the one that was last looked at; a change is reviewed in the snapshot', async () => {
  await expect(await describeSchema()).toMatchFileSnapshot('schema.snapshot.txt')
})

test('every function that runs as its owner has a search path of its own that ends in pg_temp, and is not for all', async () => {
  const rows = await database.query<{ name: string; path: string | null; open: boolean }>(
    `SELECT p.proname AS name, (SELECT c FROM unnest(p.proconfig) AS c WHERE c LIKE 'search_path=%') AS path,
            has_function_privilege('public', p.oid, 'execute') AS open
     FROM pg_proc p WHERE p.pronamespace = 'forge'::regnamespace AND p.prosecdef`,
  )
  expect(rows.length).toBeGreaterThan(0)
  for (const { name, path, open } of rows) {
    expect(path, name).toMatch(/^search_path=forge, pg_temp$/)
    expect(open, name).toBe(false)
  }
})
