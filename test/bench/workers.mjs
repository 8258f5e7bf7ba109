/* Worker processes, as the benchmark holds them, and the drain that most scenarios are made of. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { now, sleep, startMeter, until } from './measure.mjs'

const script = fileURLToPath(new URL('worker.mjs', import.meta.url))
const readyMsMax = 60_000
const stopMsMax = 30_000
/** Between the start of the workers and the moment when they may begin. */
const heldMs = 1_000

/** @returns the process once its worker runs. `held`: its jobs wait in their handlers until `go`. */
export async function startWorker({ system, ctx, handlerMs = 0, markEvery = 0, held = false }) {
  const given = JSON.stringify({ name: system.name, ctx, handlerMs, markEvery, held })
  const child = fork(script, [given], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const ended = once(child, 'exit')
  const wait = (type) =>
    new Promise((resolve, reject) => {
      const hear = (message) => {
        if (message.type !== type) return
        child.off('message', hear)
        resolve(message)
      }
      child.on('message', hear)
      void ended.then(([code, signal]) => reject(new Error(`a worker process ended (${code ?? signal})`)))
    })
  const worker = {
    started: 0,
    get ended() {
      return child.exitCode !== null || child.signalCode !== null
    },
    go: () => child.send({ type: 'go' }),
    report() {
      const answer = wait('report')
      child.send({ type: 'report' })
      return answer
    },
    forget: () => child.send({ type: 'forget' }),
    async stop() {
      if (child.exitCode === null && child.connected) child.send({ type: 'stop' })
      const timer = setTimeout(() => child.kill('SIGKILL'), stopMsMax)
      await ended
      clearTimeout(timer)
    },
  }
  // A message to a process that has just ended: whoever waits for its answer is told by its end.
  child.on('error', () => {})
  child.on('message', ({ type, started }) => {
    if (type === 'count') worker.started = started
  })
  const late = setTimeout(() => child.kill('SIGKILL'), readyMsMax)
  await wait('ready')
  clearTimeout(late)
  return worker
}

/**
 * Lets `workers` processes work off what waits: until all is finished durably, or for `msMax`. Handlers begin together, when
 * all processes are there, and the time counts from then to the moment when the last completion could be read.
 */
export async function drain(bench, { total, workers = 1, msMax = 120_000, handlerMs = 0, markEvery = 0 }) {
  const { system, ctx, server } = bench
  const launch = { system, ctx, handlerMs, markEvery, held: true }
  const running = await Promise.all(Array.from({ length: workers }, () => startWorker(launch)))
  try {
    // Each holds its first jobs by now.
    await sleep(heldMs)
    const measure = await startMeter(server)
    const beganAt = now()
    for (const worker of running) worker.go()
    const started = () => running.reduce((sum, worker) => sum + worker.started, 0)
    while (started() < total && now() - beganAt < msMax) {
      if (running.some(({ ended }) => ended)) throw new Error('a worker process ended')
      await sleep(20)
    }
    if (started() === 0) throw new Error(`no job started within ${msMax / 1_000} s`)
    const { left, endAt } = await finish(bench, beganAt + msMax)
    const reports = await Promise.all(running.map((worker) => worker.report()))
    const done = total - left
    const otherSeconds = reports.reduce((sum, report) => sum + report.cpuSeconds, 0)
    const cost = await measure({ jobs: done, own: false, otherSeconds, until: endAt })
    return {
      done,
      rate: done / ((endAt - beganAt) / 1_000),
      cpuUs: cost.cpuUs,
      walBytes: cost.walBytes,
      rssMib: Math.max(...reports.map((report) => report.rssMax)),
      ...(markEvery > 0 && {
        tenths: tenthsOf(reports[0], { beganAt, endAt, markEvery, whole: left === 0 }),
      }),
    }
  } finally {
    await Promise.all(running.map((worker) => worker.stop()))
  }
}

/** What is not durable is not done: asks the store, not the handlers. A count sees what was there when it was asked. */
async function finish({ system, ctx }, deadline) {
  for (;;) {
    const endAt = now()
    const left = await system.unfinished(ctx)
    if (left === 0 || endAt > deadline) return { left, endAt }
    await sleep(5)
  }
}

/** Rates between the marks of one process; what was started and not yet finished at the last mark burdens the last. */
function tenthsOf({ marks }, { beganAt, endAt, markEvery, whole }) {
  const ends = whole ? [...marks.slice(0, -1), endAt] : marks
  return ends.map((at, i) => markEvery / ((at - (ends[i - 1] ?? beganAt)) / 1_000))
}

/** Waits until the worker has started `n` jobs, or gives up silently: then the figures show what it had done. */
export async function waitForStarts(worker, { n, ms }) {
  await until(() => worker.started >= n, { ms, what: `the start of ${n} jobs` }).catch(() => {})
}
