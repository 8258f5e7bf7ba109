import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { deferred, type Deferred, ForgeError, systemClock } from '../kernel/index.js'
import { type Deadline, deadlineMsDefault, withDeadline } from './deadline.js'

export interface SpawnNodeOptions {
  /** The script to run: a path, or a file URL. */
  readonly script: string | URL
  readonly args?: readonly string[]
  /** The whole environment of the child. Default: that of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Default: the Node that runs this process. */
  readonly execPath?: string
  /** Options of Node itself, such as `--max-old-space-size=64`. Default none; those of this process are not inherited. */
  readonly execArgv?: readonly string[]
  readonly cwd?: string
}

/** How a process ended: by itself with a code, or by a signal. */
export interface NodeExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** Older messages are dropped, and counted. */
const messagesMax = 10_000
/** Of each output stream the last so many characters are kept. */
const outputCharsMax = 65_536
const stopMsDefault = 5_000
/** A grandchild may hold the output open after the process has ended; its end is reported after this. */
const flushMs = 1_000
const excerptChars = 2_000

interface Waiter {
  readonly matches: (message: unknown) => boolean
  readonly answer: Deferred<unknown>
}

/**
 * Starts a real Node process that talks to this one over IPC, JSON both ways. Throws FORGE_TEST_PROCESS_ENDED when it
 * could not be started. The child ends with its parent if its script reports through `report` or `reportReady`; else
 * it has to listen for `disconnect` itself. While it is paused it cannot notice, so stop what you paused.
 */
export function spawnNode(options: SpawnNodeOptions): NodeProcess {
  const { script, args = [], execArgv = [], execPath = process.execPath, env, cwd } = options
  const file = script instanceof URL ? fileURLToPath(script) : script
  const child = spawn(execPath, [...execArgv, file, ...args], {
    ...(env && { env }),
    ...(cwd && { cwd }),
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  // Failures of kill and send are reported to their callers; the event alone would end this process.
  child.on('error', () => undefined)
  if (child.pid === undefined) {
    throw new ForgeError(
      'FORGE_TEST_PROCESS_ENDED',
      `'${execPath}' could not be started in ${cwd ?? 'this folder'}.`,
    )
  }
  return new NodeProcess(child, child.pid)
}

/** A process made by `spawnNode`. Disposing stops it. */
export class NodeProcess implements AsyncDisposable {
  readonly pid: number
  /** Settles when the process has ended and its output and messages are complete. Never rejects. */
  readonly exited: Promise<NodeExit>
  readonly #child: ChildProcess
  readonly #messages: unknown[] = []
  readonly #waiters = new Set<Waiter>()
  #messagesDropped = 0
  #stdout = ''
  #stderr = ''
  #exit: NodeExit | undefined

  constructor(child: ChildProcess, pid: number) {
    this.pid = pid
    this.#child = child
    child.stdout
      ?.setEncoding('utf8')
      .on('data', (text: string) => (this.#stdout = lastOf(this.#stdout + text)))
    child.stderr
      ?.setEncoding('utf8')
      .on('data', (text: string) => (this.#stderr = lastOf(this.#stderr + text)))
    child.on('message', (message) => this.#receive(message))
    this.exited = this.#watchExit()
  }

  /** What the child sent, oldest first: the last 10,000. */
  get messages(): readonly unknown[] {
    return this.#messages
  }

  /** How many messages no longer stand in `messages`. */
  get messagesDropped(): number {
    return this.#messagesDropped
  }

  /** The last 65,536 characters of each. */
  get stdout(): string {
    return this.#stdout
  }

  get stderr(): string {
    return this.#stderr
  }

  /** Sends a signal to this process alone and does not wait; await `exited` for its end. No effect after that. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#child.kill(signal)
  }

  /** SIGSTOP: the process keeps its sockets and its memory and does nothing. Not on Windows. */
  pause(): void {
    this.kill('SIGSTOP')
  }

  /** SIGCONT. */
  resume(): void {
    this.kill('SIGCONT')
  }

  /** Sends a message of JSON values; the child reads it with `process.on('message')`. Throws FORGE_TEST_PROCESS_ENDED. */
  send(message: object): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#child.send(message, (error) => {
        if (error) reject(this.#ended('cannot be sent a message', error))
        else resolve()
      })
    })
  }

  /**
   * The oldest message that satisfies the predicate, of those in `messages` and those to come. Throws
   * FORGE_TEST_DEADLINE, and FORGE_TEST_PROCESS_ENDED as soon as the process has ended without sending it.
   */
  waitForMessage<T>(predicate: (message: unknown) => message is T, deadline?: Deadline): Promise<T>
  waitForMessage(predicate: (message: unknown) => boolean, deadline?: Deadline): Promise<unknown>
  async waitForMessage(
    predicate: (message: unknown) => boolean,
    { deadlineMs = deadlineMsDefault }: Deadline = {},
  ): Promise<unknown> {
    const standing = this.#messages.findIndex(predicate)
    if (standing >= 0) return this.#messages[standing]
    if (this.#exit) throw this.#ended('did not send the message')

    const waiter: Waiter = { matches: predicate, answer: deferred() }
    const { promise } = waiter.answer
    this.#waiters.add(waiter)
    try {
      return await withDeadline(
        promise,
        deadlineMs,
        () => `Process ${this.pid} sent no such message. ${this.#story()}`,
      )
    } finally {
      this.#waiters.delete(waiter)
    }
  }

  /** The message of the child's `reportReady`. Throws as `waitForMessage` does. */
  ready(deadline?: Deadline): Promise<object> {
    return this.waitForMessage(isReady, deadline)
  }

  /** SIGTERM, and SIGKILL after `deadlineMs` (default 5,000). Resolves when the process has ended; may be called again. */
  async stop({ deadlineMs = stopMsDefault }: Deadline = {}): Promise<NodeExit> {
    this.kill('SIGTERM')
    // A paused process sees no other signal until it goes on.
    this.resume()
    const patience = systemClock.timer(deadlineMs, () => this.kill('SIGKILL'))
    try {
      return await this.exited
    } finally {
      patience.cancel()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  #receive(message: unknown): void {
    this.#messages.push(message)
    if (this.#messages.length > messagesMax) {
      this.#messages.shift()
      this.#messagesDropped += 1
    }
    for (const waiter of this.#waiters) {
      try {
        if (waiter.matches(message)) waiter.answer.resolve(message)
      } catch (error) {
        waiter.answer.reject(error)
      }
    }
  }

  #watchExit(): Promise<NodeExit> {
    const exit = deferred<NodeExit>()
    const settle = (code: number | null, signal: NodeJS.Signals | null): void => {
      this.#exit ??= { code, signal }
      for (const waiter of this.#waiters) waiter.answer.reject(this.#ended('did not send the message'))
      exit.resolve(this.#exit)
    }
    // `close` comes after the last output and the last message, `exit` before them.
    this.#child.on('close', settle)
    this.#child.on('exit', (code, signal) => {
      const timer = systemClock.timer(flushMs, () => settle(code, signal))
      void exit.promise.then(() => timer.cancel())
    })
    return exit.promise
  }

  #ended(what: string, cause?: unknown): ForgeError {
    return new ForgeError('FORGE_TEST_PROCESS_ENDED', `Process ${this.pid} ${what}. ${this.#story()}`, {
      cause,
    })
  }

  /** What a reader of a failed test wants to know about this process. */
  #story(): string {
    const exit = this.#exit
    const state = exit ? `It ended (code ${exit.code}, signal ${exit.signal})` : 'It runs'
    const count = this.#messages.length + this.#messagesDropped
    const last =
      count === 0 ? '' : `, the last: ${JSON.stringify(this.#messages.at(-1)).slice(0, excerptChars)}`
    const errors = this.#stderr.trim().slice(-excerptChars)
    return `${state} and sent ${count} messages${last}.${errors === '' ? '' : ` Its stderr ends:\n${errors}\n`}`
  }
}

function lastOf(text: string): string {
  return text.slice(-outputCharsMax)
}

function isReady(message: unknown): message is { readonly type: 'ready' } {
  return typeof message === 'object' && message !== null && 'type' in message && message.type === 'ready'
}
