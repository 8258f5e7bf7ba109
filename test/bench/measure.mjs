/* Clocks, quantiles, and what a piece of work cost: time, processor, write-ahead log. */
import { readdirSync, readFileSync } from 'node:fs'

/** Milliseconds of a clock that all processes of the machine share. */
export const now = () => Number(process.hrtime.bigint()) / 1e6

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** @throws Error when it did not become true in time */
export async function until(isTrue, { ms, everyMs = 10, what }) {
  const deadline = now() + ms
  while (!(await isTrue())) {
    if (now() > deadline) throw new Error(`${what} did not happen within ${ms / 1_000} s`)
    await sleep(everyMs)
  }
}

/** `q` from 0 to 1, by nearest rank; null for no values. */
export function quantile(values, q) {
  if (values.length === 0) return null
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]
}

export function median(values) {
  if (values.length === 0) return null
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Three significant digits are more than a benchmark knows. */
export function round(value) {
  if (value === null || !Number.isFinite(value)) return null
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3))
}

/** Ticks of the kernel in /proc: 100 per second on every Linux that Node runs on. */
const ticksPerSecond = 100

function processStat(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const end = text.lastIndexOf(')')
    const fields = text.slice(end + 2).split(' ')
    const [own, reaped] = [Number(fields[11]) + Number(fields[12]), Number(fields[13]) + Number(fields[14])]
    return { name: text.slice(text.indexOf('(') + 1, end), parent: Number(fields[1]), own, reaped }
  } catch {
    return null
  }
}

/**
 * Processor seconds of the whole server so far: its main process, what runs under it and what has ended. Null where /proc
 * does not show the process that `backendPid` names, as with a server on another machine.
 */
export function serverMeter(backendPid) {
  const backend = processStat(backendPid)
  const main = backend !== null && backend.name.startsWith('postgres') ? backend.parent : null
  return () => {
    const top = main === null ? null : processStat(main)
    if (top === null) return null
    let ticks = top.own + top.reaped
    for (const name of readdirSync('/proc')) {
      const process = /^\d+$/.test(name) ? processStat(name) : null
      if (process?.parent === main) ticks += process.own
    }
    return ticks / ticksPerSecond
  }
}

const ownSeconds = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/**
 * Starts measuring. The function it returns tells seconds, and per job microseconds of processor (the server's and this
 * process's, and `otherSeconds` of further processes) and bytes of write-ahead log.
 */
export async function startMeter(server) {
  const [at, walAt, serverAt, ownAt] = [now(), await server.walBytes(), server.cpuSeconds(), ownSeconds()]
  return async ({ jobs, otherSeconds = 0, own = true, until: end = now() }) => {
    const spent = serverAt === null ? null : server.cpuSeconds() - serverAt
    const total = spent === null ? null : spent + otherSeconds + (own ? ownSeconds() - ownAt : 0)
    return {
      seconds: (end - at) / 1_000,
      serverCpuPercent: spent === null ? null : (spent / ((end - at) / 1_000)) * 100,
      cpuUs: total === null ? null : (total / jobs) * 1e6,
      walBytes: ((await server.walBytes()) - walAt) / jobs,
    }
  }
}
