import { spawn, type ChildProcess } from 'node:child_process'
import { Socket } from 'node:net'
import { deferred, ForgeError, systemClock, within } from '../kernel/index.js'
import type { Account } from './account.js'
import { LogTail } from './log.js'

/**
 * Runs the server and outlives us by as much as it takes to stop it. Our end of descriptor 3 carries words: names of
 * signals for the server, or END. When we die, however we die, it closes. Then the server gets SIGINT (a fast shutdown:
 * SIGTERM would wait for other clients to leave) and later SIGQUIT; after END it gets SIGQUIT at once. Both times the
 * folder `$1`, if given, is removed; the mark is made before the signal, as it may be read right after. The guard
 * ignores what a service manager sends to the whole group, or the server would lose its guard while it shuts down.
 */
const guardScript = `
trap '' HUP INT TERM
remove=$1; shift
"$@" 3<&- 1>&2 &
server=$!
echo "$server"
(
  how=INT
  while read -r word <&3; do
    if [ "$word" = END ]; then how=QUIT; break; fi
    kill -s "$word" "$server"
  done
  if [ -n "$remove" ]; then : >"$remove/forge-remove"; fi
  kill -s "$how" "$server"; sleep 5; kill -s QUIT "$server"
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$server"; code=$?
kill -s KILL "$watcher" 2>/dev/null
if [ -n "$remove" ] && [ -e "$remove/forge-remove" ]; then rm -rf -- "$remove"; fi
exit "$code"
`

/** PG* variables or a locale of ours must not reach the server; the guard needs sleep and rm. */
export const serverEnv: Readonly<Record<string, string>> = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }

export interface LaunchSpec {
  readonly command: readonly string[]
  readonly account: Account | null
  /** A folder to remove after END, and when we die before the server does. */
  readonly removeDir: string | null
}

/** One run of the server, from spawn to exit. */
export class GuardedServer {
  readonly log = new LogTail()
  readonly #child: ChildProcess
  readonly #ended = deferred<void>()
  readonly #started = deferred<void>()
  #pid: number | undefined
  #hasEnded = false

  constructor(spec: LaunchSpec) {
    // A session of its own: Ctrl-C in our terminal does not reach it.
    this.#child = spawn(
      '/bin/sh',
      ['-c', guardScript, 'forge-embedded', spec.removeDir ?? '', ...spec.command],
      {
        ...spec.account,
        cwd: '/',
        detached: true,
        env: serverEnv,
        stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      },
    )
    this.#child.once('error', (error) => this.#end(error))
    // A guard that was killed leaves its watcher behind, which stops the server once our end of the pipe is closed.
    this.#child.once('exit', () => this.#pipe?.destroy())
    this.#child.once('close', () => this.#end(null))
    this.#child.stdout?.once('data', (line: Buffer) => (this.#pid = Number.parseInt(line.toString(), 10)))
    this.#child.stderr?.setEncoding('utf8').on('data', (chunk: string) => this.#read(chunk))
    // Written to while the guard goes away, it would throw EPIPE; the end of the process says all there is to say.
    this.#pipe?.on('error', () => {})
  }

  /** The server's process, not the guard's; undefined when it has ended. */
  get pid(): number | undefined {
    return this.#hasEnded ? undefined : this.#pid
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** @throws ForgeError FORGE_EMBEDDED_FAILED when it ends before it is ready, or is not ready in time */
  async ready(deadlineMs: number): Promise<void> {
    const late = () => this.failure(`The server was not ready within ${deadlineMs} ms.`)
    await within(this.#started.promise, { clock: systemClock, ms: deadlineMs, late })
  }

  /** Resolves true when the server has ended, false when it has not within `deadlineMs`. */
  async ended(deadlineMs: number): Promise<boolean> {
    const late = new Error('late')
    return within(this.#ended.promise, { clock: systemClock, ms: deadlineMs, late: () => late }).then(
      () => true,
      () => false,
    )
  }

  /** A signal for the server; END ends it at once and removes its folder, even if we die meanwhile. */
  say(word: 'INT' | 'QUIT' | 'KILL' | 'END'): void {
    if (this.#pipe?.writable) this.#pipe.write(`${word}\n`)
  }

  /** Whether the server keeps our process from ending by itself. */
  hold(yes: boolean): void {
    const turn = yes ? 'ref' : 'unref'
    this.#child[turn]()
    for (const stream of this.#child.stdio) if (stream instanceof Socket) stream[turn]()
  }

  failure(what: string, cause?: unknown): ForgeError {
    return new ForgeError('FORGE_EMBEDDED_FAILED', `${what}${this.log.quoted()}`, { cause })
  }

  get #pipe(): Socket | null {
    const pipe = this.#child.stdio[3]
    return pipe instanceof Socket ? pipe : null
  }

  #read(chunk: string): void {
    this.log.push(chunk)
    if (this.log.saw(/database system is ready to accept connections/)) this.#started.resolve()
  }

  #end(error: Error | null): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#started.promise.catch(() => {})
    this.#started.reject(this.failure(error ? 'The server could not be run.' : 'The server ended.', error))
    this.#ended.resolve()
  }
}
