/** What deserves a look: keys by topic, `null` for all of a topic; `null` alone is all of all topics. Never truth. */
export type Hints = ReadonlyMap<string, readonly string[] | null> | null

/** NOTIFY takes 7,999 bytes. */
const messageBytesMax = 7_900
/** Far more than one message holds; beyond it looking at everything is cheaper. */
const keysMax = 1_000
const topicsMax = 100

/** Hints that wait for their moment: merged, without repeats, and bounded whatever is put in. */
export class HintBag {
  #topics = new Map<string, Set<string> | null>()
  #all = false

  get empty(): boolean {
    return this.#topics.size === 0 && !this.#all
  }

  add(topic: string, keys: readonly string[] | null): void {
    if (this.#all) return
    const known = this.#topics.get(topic)
    if (known === null) return
    const set = known ?? new Set()
    for (const key of keys ?? []) set.add(key)
    this.#topics.set(topic, keys === null || set.size > keysMax ? null : set)
    if (this.#topics.size > topicsMax) this.addAll(null)
  }

  addAll(hints: Hints): void {
    if (hints) for (const [topic, keys] of hints) this.add(topic, keys)
    else {
      this.#topics.clear()
      this.#all = true
    }
  }

  take(): Hints {
    const topics = this.#topics
    const all = this.#all
    this.#topics = new Map()
    this.#all = false
    return all ? null : new Map([...topics].map(([topic, keys]) => [topic, keys && [...keys]]))
  }
}

/**
 * The message that carries the hints, at most 7,900 bytes: `{ n: sender, t: { topic: [keys] } }`. What does not fit
 * loses its keys, the longest lists first; so it says less exactly where to look, and never too little.
 */
export function encodeHints(sender: string, hints: Hints): string {
  const topics = new Map(hints ?? [])
  const write = (): string => JSON.stringify({ n: sender, t: hints && Object.fromEntries(topics) })
  const sizes = [...topics].map(([topic, keys]) => ({ topic, bytes: byteLength(JSON.stringify(keys)) }))
  let bytes = byteLength(write())
  for (const { topic, bytes: own } of sizes.sort((a, b) => b.bytes - a.bytes)) {
    if (bytes <= messageBytesMax) break
    topics.set(topic, null)
    bytes -= own - 'null'.length
  }
  return bytes <= messageBytesMax || !hints ? write() : encodeHints(sender, null)
}

/** What another node says, or undefined for everything else: garbage, forgeries of another shape, our own words. */
export function decodeHints(message: string, self: string): Hints | undefined {
  const { n: sender, t: topics } = parse(message)
  if (typeof sender !== 'string' || sender === self) return undefined
  if (topics === null) return null
  if (!isRecord(topics)) return undefined
  const hints = new Map<string, readonly string[] | null>()
  for (const [topic, keys] of Object.entries(topics))
    if (keys === null || isTexts(keys)) hints.set(topic, keys)
  return hints
}

function parse(message: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(message)
    return isRecord(value) ? value : {}
  } catch {
    return {}
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

function byteLength(text: string): number {
  return Buffer.byteLength(text)
}
