import { randomBytes } from 'node:crypto'
import { now } from '../measure.mjs'

/** A small but not empty input, about 60 bytes; it carries the time of its enqueue call. */
export const payload = (i) => ({ i, user: `u${i % 1000}`, note: 'a small but not empty payload' })
export const timed = (i) => ({ i, t: now() })

/** Inputs of about `bytes` bytes of JSON that do not compress: the server would store little of a text that repeats. */
export function sized(bytes) {
  const text = randomBytes(bytes)
    .toString('base64')
    .slice(0, Math.max(0, bytes - 25))
  return (i) => ({ i, text })
}

/** Enqueues `n` in bulk, in chunks of at most five megabytes. */
export async function fill(bench, { n, inputOf = payload }) {
  const producer = await bench.system.producer(bench.ctx)
  try {
    await fillWith(producer, { n, inputOf })
  } finally {
    await producer.close()
  }
  await bench.analyze()
}

export async function fillWith(producer, { n, inputOf = payload }) {
  const bytes = JSON.stringify(inputOf(0)).length
  const chunk = Math.max(1, Math.min(producer.bulkChunk, Math.floor(5e6 / bytes)))
  for (let at = 0; at < n; at += chunk) {
    const size = Math.min(chunk, n - at)
    await producer.enqueueBulk(Array.from({ length: size }, (_, i) => inputOf(at + i)))
  }
}
