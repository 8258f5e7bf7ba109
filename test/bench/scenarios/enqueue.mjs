/* How fast jobs come in. All of them are durable when the call resolves. */
import { now, quantile, startMeter } from '../measure.mjs'
import { fillWith, payload } from './payloads.mjs'

const everyone = ['forge', 'plain SQL', 'peers']

export const enqueue = {
  name: 'enqueue',
  title: 'Enqueue, awaited one by one',
  about: 'Each producer awaits its job before it sends the next; all producers live in one process.',
  systems: everyone,
  metric: 'rate',
  better: 'higher',
  points: [
    { name: '1 producer', producers: 1 },
    { name: '10 producers', producers: 10 },
  ],
  async run(bench) {
    const producer = await bench.system.producer(bench.ctx)
    try {
      for (let i = 0; i < 50; i++) await producer.enqueueOne(payload(i))
      const [startedAt, ms, times] = [now(), bench.ms(4_000), []]
      const measure = await startMeter(bench.server)
      const produce = async () => {
        while (now() - startedAt < ms) {
          const at = now()
          await producer.enqueueOne(payload(times.length))
          times.push(now() - at)
        }
      }
      await Promise.all(Array.from({ length: bench.point.producers }, produce))
      const { seconds, cpuUs, walBytes } = await measure({ jobs: times.length })
      const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)]
      return { rate: times.length / seconds, p50, p99, cpuUs, walBytes }
    } finally {
      await producer.close()
    }
  },
}

export const bulk = {
  name: 'bulk',
  title: 'Bulk enqueue',
  about: '100,000 jobs in calls of 5,000.',
  systems: everyone,
  metric: 'rate',
  better: 'higher',
  points: [{ name: 'calls of 5,000' }],
  async run(bench) {
    const [producer, n] = [await bench.system.producer(bench.ctx), bench.n(100_000)]
    try {
      await fillWith(producer, { n: Math.min(n, 5_000) })
      const measure = await startMeter(bench.server)
      await fillWith(producer, { n })
      const { seconds, cpuUs, walBytes } = await measure({ jobs: n })
      return { rate: n / seconds, cpuUs, walBytes }
    } finally {
      await producer.close()
    }
  },
}
