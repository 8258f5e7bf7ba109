import { randomFillSync, randomUUID } from 'node:crypto'

/** A version 4 UUID: node ids, epochs, lease tokens. Random, so that no failover can bring one back. */
export function randomId(): string {
  return randomUUID()
}

/** A UUID made of two: differs whenever one of them does. */
export function mixIds(one: string, other: string): string {
  const bits = (id: string): bigint => BigInt(`0x${id.replaceAll('-', '')}`)
  const text = (bits(one) ^ bits(other)).toString(16).padStart(32, '0')
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && uuidPattern.test(value)
}

/**
 * Makes version 7 UUIDs: 48 bits of milliseconds, a 12-bit counter inside the millisecond, 62 random bits.
 * Ids of one process rise, so that a b-tree appends; the random part makes them unique between processes.
 */
export function idFactory(wallMs: () => number): () => string {
  const bytes = new Uint8Array(8 * 512)
  let used = bytes.length
  let lastMs = 0
  let counter = 0
  return () => {
    if (used === bytes.length) {
      randomFillSync(bytes)
      used = 0
    }
    const at = used
    used += 8
    const now = wallMs()
    if (now > lastMs) {
      lastMs = now
      counter = 0
    } else if (++counter > 0xfff) {
      lastMs += 1
      counter = 0
    }
    const time = lastMs.toString(16).padStart(12, '0')
    const tail = (0x7000 | counter).toString(16)
    const b = (offset: number): string => hex[bytes[at + offset] as number] as string
    const variant = hex[((bytes[at] as number) & 0x3f) | 0x80] as string
    return `${time.slice(0, 8)}-${time.slice(8)}-${tail}-${variant}${b(1)}-${b(2)}${b(3)}${b(4)}${b(5)}${b(6)}${b(7)}`
  }
}
