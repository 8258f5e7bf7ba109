/* How soon a job starts: on an idle worker, under a steady stream, and past a full queue. */
import { now, quantile, sleep, startMeter } from '../measure.mjs'
import { startWorker, waitForStarts } from '../workers.mjs'
import { fill, payload, timed } from './payloads.mjs'

const starts = { metric: 'startP50', better: 'lower' }

/** A worker process and a producer in this one, both warm. */
async function withBoth(bench, work) {
  const producer = await bench.system.producer(bench.ctx)
  try {
    const worker = await startWorker(bench)
    try {
      for (let i = 0; i < 20; i++) await producer.enqueueOne(payload(i))
      await waitForStarts(worker, { n: 20, ms: 15_000 })
      return await work({ producer, worker })
    } finally {
      await worker.stop()
    }
  } finally {
    await producer.close()
  }
}

export const latency = {
  name: 'latency',
  title: 'From enqueue to start',
  about:
    '1,000 jobs, one each 10 to 20 ms, to one idle process: from before the enqueue call to the start of the handler in ' +
    'another process. Enqueue is the part until the awaited call has resolved.',
  systems: ['forge', 'peers'],
  ...starts,
  chart: { unit: 'ms', metrics: ['startP50', 'startP99', 'enqueueP50'] },
  points: [{ name: 'idle worker' }],
  run: (bench) =>
    withBoth(bench, async ({ producer, worker }) => {
      const [n, enqueues] = [bench.n(1_000), []]
      for (let i = 0; i < n; i++) {
        const at = now()
        await producer.enqueueOne(timed(i))
        enqueues.push(now() - at)
        await sleep(10 + Math.random() * 10)
      }
      await waitForStarts(worker, { n: n + 20, ms: 10_000 })
      const { delays } = await worker.report()
      return {
        startP50: quantile(delays, 0.5),
        startP99: quantile(delays, 0.99),
        enqueueP50: quantile(enqueues, 0.5),
        lost: n - delays.length,
      }
    }),
}

const perSecond = 500
const inFlightMax = 2_000

/** Sends at a fixed pace, however long the calls take; @returns how many, and how many were over the limit in flight */
async function sendSteadily(producer, ms) {
  const [startedAt, inFlight] = [now(), new Set()]
  let sent = 0
  while (now() - startedAt < ms) {
    const due = Math.floor(((now() - startedAt) / 1_000) * perSecond)
    while (sent < due && inFlight.size < inFlightMax) {
      const call = producer.enqueueOne(timed(sent++)).finally(() => inFlight.delete(call))
      inFlight.add(call)
    }
    await sleep(2)
  }
  await Promise.all(inFlight)
  return { sent, due: Math.floor((ms / 1_000) * perSecond) }
}

export const steady = {
  name: 'steady',
  title: '500 single enqueues a second',
  about: 'For 30 s, to one process: whether it keeps up, how soon jobs start, and what it costs the server.',
  systems: ['forge', 'peers'],
  ...starts,
  chart: { unit: 'ms', metrics: ['startP50', 'startP99'] },
  points: [{ name: '500/s' }],
  run: (bench) =>
    withBoth(bench, async ({ producer, worker }) => {
      const before = await worker.report()
      worker.forget()
      const measure = await startMeter(bench.server)
      const { sent, due } = await sendSteadily(producer, bench.ms(30_000))
      const cost = await measure({ jobs: sent })
      const startedThen = worker.started - before.started
      await waitForStarts(worker, { n: before.started + sent, ms: 10_000 })
      const report = await worker.report()
      return {
        startP50: quantile(report.delays, 0.5),
        startP99: quantile(report.delays, 0.99),
        serverCpuPercent: cost.serverCpuPercent,
        sentShare: sent / due,
        startedShare: startedThen / sent,
      }
    }),
}

export const urgent = {
  name: 'urgent',
  title: 'A more urgent job under a full queue',
  about:
    'While 100,000 jobs with handlers of 1 ms wait, one of the highest priority each 50 ms: from before its enqueue call ' +
    'to its start.',
  systems: ['forge', 'peers'],
  ...starts,
  chart: { unit: 'ms', metrics: ['startP50', 'startP99'] },
  points: [{ name: 'full queue' }],
  async run(bench) {
    const total = bench.n(100_000)
    await fill(bench, { n: total })
    const producer = await bench.system.producer(bench.ctx)
    const worker = await startWorker({ ...bench, handlerMs: 1 })
    try {
      await waitForStarts(worker, { n: 1, ms: 30_000 })
      let sent = 0
      // Stops while the queue is still full: in an empty one every job is at the front.
      while (sent < 100 && worker.started < total * 0.7) {
        await producer.enqueueUrgent({ t: now(), u: true })
        sent++
        await sleep(50)
      }
      await sleep(500)
      const { urgent: delays } = await worker.report()
      const waiting = sent - delays.length
      return { startP50: quantile(delays, 0.5), startP99: quantile(delays, 0.99), sent, waiting }
    } finally {
      await worker.stop()
      await producer.close()
    }
  },
}
