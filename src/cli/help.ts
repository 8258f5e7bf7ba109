export const help = `Usage: forge <command> [options]

Commands
  migrate   apply the migrations that this version of forge carries, and say which;
            --sql shows them instead, for a tool of your own
  status    the version of the schema, the nodes, the jobs by state, the queues
  doctor    check the database, this role and this machine; each finding says what to do
  nodes     the processes that are there, and those that died within the last hour
  leaders   which node leads what, since when, and what it holds that by
  drain <id>  asks a node to take nothing new; what runs there goes on
  crons     look at schedules, and trigger, pause and resume them:
    list                      by name; --limit <n>, --after <name>
    preview <name>            the next ten times, or --limit <n>
    trigger <name>            fires a tick now, or --at <2030-12-24T18:00:00Z>, as of then
    pause <name>, resume <name>
                              all three: --by <who> and --reason <text> stand in its history
  jobs      look at jobs and change them:
    list                      newest first
    show <id>                 everything about one job
    explain <id>              why it is not running, in one sentence
    retry [<id> ...]          runs finished jobs again that did not complete; retryable ones now
    cancel [<id> ...]         ends waiting jobs; asks running ones to stop
    discard [<id> ...]        gives waiting jobs up: they become dead letters
    reschedule [<id> ...]     gives waiting jobs another time or priority

Which jobs (all conditions must hold)
  --state <state,...>    scheduled blocked available running retryable
                         completed cancelled discarded quarantined
  --queue, --name, --tag <text>    --parent, --id <id>
  --before <id>          only jobs older than this one: the next page of a list
  --limit <n>            at most so many; lists 50 (to 200), changes 10,000
  --all                  all of them: a change without any condition needs it

How to change them
  --dry-run              count them and change nothing
  -y, --yes              do not ask; needed for a change without ids where nobody can be asked
  --reason <text>        of a cancel or discard: stands in the history
  --delay <5m>, --run-at <2030-12-24T18:00:00Z>, --priority <high or 0..100>    of a reschedule

Options
  --database-url <url>   postgres://user:password@host:5432/database (default: $DATABASE_URL;
                         better there, since other users of a machine see its arguments)
  --schema <name>        the schema of forge (default: $FORGE_SCHEMA, else forge)
  --json                 one JSON document on stdout and nothing else
  -h, --help             this text
  -v, --version          the version of forge

Exit codes
  0  all is well
  1  something is to be done: migrations are pending, a check failed, a migration failed, a job
     that was named is not there or was not reached
  2  the call is wrong: unknown command or option, malformed URL, filter or schema name
  3  the database cannot be reached: server down, login refused, no such database
`
