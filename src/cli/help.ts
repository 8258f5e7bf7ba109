export const help = `Usage: forge <command> [options]

Commands
  migrate   apply the migrations that this version of forge carries, and say which
  status    the version of the schema, the nodes, the jobs by state, the queues
  doctor    check the database, this role and this machine; each finding says what to do

Options
  --database-url <url>   postgres://user:password@host:5432/database (default: $DATABASE_URL;
                         better there, since other users of a machine see its arguments)
  --schema <name>        the schema of forge (default: $FORGE_SCHEMA, else forge)
  --json                 one JSON document on stdout and nothing else
  -h, --help             this text
  -v, --version          the version of forge

Exit codes
  0  all is well
  1  something is to be done: migrations are pending, a check failed, a migration failed
  2  the call is wrong: unknown command or option, malformed URL or schema name
  3  the database cannot be reached: server down, login refused, no such database
`
