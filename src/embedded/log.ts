const linesMax = 40
const lineCharsMax = 1_000
const quotedLines = 12

/** The last lines of a server's log: what an error shows. */
export class LogTail {
  readonly #lines: string[] = []
  #rest = ''

  push(chunk: string): void {
    const lines = (this.#rest + chunk).split('\n')
    this.#rest = (lines.pop() ?? '').slice(-lineCharsMax)
    this.#lines.push(...lines.map((line) => line.slice(0, lineCharsMax)))
    this.#lines.splice(0, this.#lines.length - linesMax)
  }

  saw(pattern: RegExp): boolean {
    return this.#lines.some((line) => pattern.test(line))
  }

  /** The end of a message: the last lines, each on its own line. */
  quoted(): string {
    const last = [...this.#lines, this.#rest].filter(Boolean).slice(-quotedLines)
    return last.length === 0 ? ' It logged nothing.' : ` Its last lines:\n${last.join('\n')}\n`
  }
}
