import { Child } from './child.ts'

/** A process that is started again when it dies. */
export class Kept implements AsyncDisposable {
  /** Rejects when it cannot be started again. */
  readonly failed: Promise<never>
  #fail!: (error: unknown) => void
  readonly #name: 'web' | 'worker'
  readonly #env: Readonly<Record<string, string>>
  #child: Child | null = null
  #ending = false

  constructor(name: 'web' | 'worker', env: Readonly<Record<string, string>>) {
    this.#name = name
    this.#env = env
    this.failed = new Promise((_resolve, reject) => (this.#fail = reject))
    this.failed.catch(() => {})
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  async start(port?: number): Promise<{ readonly port?: number }> {
    const env = port === undefined ? this.#env : { ...this.#env, PORT: String(port) }
    const child = (this.#child = new Child(this.#name, env))
    const ready = await child.ready()
    void child.exited.then(() => this.#again(ready.port))
    return ready
  }

  async #again(port: number | undefined): Promise<void> {
    if (this.#ending) return
    try {
      await this.start(port)
      console.log(`  ${this.#name} died; the new one is process ${this.pid}`)
    } catch (error) {
      this.#fail(error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true
    await this.#child?.[Symbol.asyncDispose]()
  }
}
