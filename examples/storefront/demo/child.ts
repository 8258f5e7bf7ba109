import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const startMsMax = 45_000
const stopMsMax = 12_000

const children = new Set<ChildProcess>()

export function killChildren(): void {
  for (const child of children) child.kill('SIGKILL')
}

/** A process of the app: `web` or `worker`. It ends by itself when this one is gone. */
export class Child implements AsyncDisposable {
  readonly name: string
  readonly pid: number
  readonly exited: Promise<unknown>
  readonly #child: ChildProcess

  constructor(name: 'web' | 'worker', env: Readonly<Record<string, string>>) {
    this.name = name
    this.#child = fork(fileURLToPath(new URL(`../${name}.ts`, import.meta.url)), {
      env: { ...process.env, NODE_ENV: 'development', ...env },
      execArgv: [],
    })
    children.add(this.#child)
    this.pid = this.#child.pid ?? 0
    this.exited = once(this.#child, 'exit').finally(() => children.delete(this.#child))
  }

  get hasEnded(): boolean {
    return !children.has(this.#child)
  }

  /** What it reported when it could begin. @throws Error when it ended before that, or takes too long */
  async ready(): Promise<{ readonly port?: number }> {
    const reported = once(this.#child, 'message', { signal: AbortSignal.timeout(startMsMax) })
    const ended = this.exited.then(() => Promise.reject(new Error(`${this.name} ended while it started`)))
    ended.catch(() => {})
    const [message] = (await Promise.race([reported, ended])) as [{ readonly port?: number }]
    return message
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  /** Lets it end in order, and kills it when it does not. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.hasEnded) return
    this.#child.kill('SIGTERM')
    const patience = setTimeout(() => this.kill(), stopMsMax)
    await this.exited
    clearTimeout(patience)
  }
}
