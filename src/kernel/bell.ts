import type { Clock } from './clock.js'

/** Wakes a loop between its rounds; what rings during a round leads to the next one at once. */
export class Bell {
  #rung = false
  #heard: (() => void) | null = null

  ring(): void {
    this.#rung = true
    this.#heard?.()
  }

  /** Resolves after `ms`, when the signal aborts, or when it rings or has rung since the last wait. Never rejects. */
  async wait(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#rung && !signal.aborted) await this.#sleep(clock, ms, signal)
    this.#rung = false
  }

  async #sleep(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const end = (): void => {
        timer.cancel()
        signal.removeEventListener('abort', end)
        resolve()
      }
      const timer = clock.timer(ms, end)
      signal.addEventListener('abort', end)
      this.#heard = end
    })
    this.#heard = null
  }
}
