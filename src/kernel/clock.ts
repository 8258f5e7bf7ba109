/**
 * Two clocks, named apart. What is stored or compared across processes uses the database's clock (`now()` in SQL);
 * this one measures durations inside a process and stamps ids. Tests stub it.
 */
export interface Clock {
  /** Milliseconds that only rise; comparable between the threads of one process, not between processes. */
  monotonicMs(): number
  /** Milliseconds since 1970 by this machine's clock: for ids and for people, never for a decision. */
  wallMs(): number
  /** Calls `fire` once after `ms`; the timer never keeps the process alive. */
  timer(ms: number, fire: () => void): Timer
}

export interface Timer {
  cancel(): void
}

/** setTimeout overflows beyond 2^31-1 ms and would fire at once: a longer timer goes in stages. */
const stageMsMax = 2_147_483_647

/** Each thread counts `performance.now()` from its own start: this is where that lies on the clock they share. */
const threadStartMs = Number(process.hrtime.bigint()) / 1e6 - performance.now()

export const systemClock: Clock = {
  monotonicMs: () => threadStartMs + performance.now(),
  wallMs: () => Date.now(),
  timer(ms, fire) {
    let handle: NodeJS.Timeout
    const arm = (left: number): void => {
      const stage = Math.min(Math.max(left, 0), stageMsMax)
      handle = setTimeout(() => (left > stage ? arm(left - stage) : fire()), stage)
      handle.unref()
    }
    arm(ms)
    return { cancel: () => clearTimeout(handle) }
  },
}
