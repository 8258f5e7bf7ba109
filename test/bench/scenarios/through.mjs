/* All the way through: jobs come in and are worked off at the same time. */
import { now, startMeter, until } from '../measure.mjs'
import { startWorker } from '../workers.mjs'
import { fillWith, sized } from './payloads.mjs'

const msMax = 120_000

export const inputs = {
  name: 'inputs',
  title: 'Inputs by size',
  about:
    'Jobs with inputs of so many bytes of JSON, enqueued in bulk (calls of at most 5 MB) while one process works them off: ' +
    'from the first call to the last completion.',
  systems: ['forge', 'plain SQL', 'peers'],
  metric: 'rate',
  better: 'higher',
  points: [
    { name: '100 B', bytes: 100, n: 50_000 },
    { name: '10 kB', bytes: 10_000, n: 5_000 },
    { name: '500 kB', bytes: 500_000, n: 200 },
  ],
  async run({ system, ctx, server, point, n }) {
    const producer = await system.producer(ctx)
    const worker = await startWorker({ system, ctx })
    try {
      const [total, before] = [n(point.n), await worker.report()]
      const [measure, beganAt] = [await startMeter(server), now()]
      await fillWith(producer, { n: total, inputOf: sized(point.bytes) })
      let endAt = 0
      const isDone = async () => {
        endAt = now()
        return (await system.unfinished(ctx)) === 0
      }
      await until(isDone, { ms: msMax, everyMs: 5, what: 'the end of all jobs' })
      const after = await worker.report()
      const otherSeconds = after.cpuSeconds - before.cpuSeconds
      const { cpuUs, walBytes } = await measure({ jobs: total, otherSeconds, until: endAt })
      return { rate: total / ((endAt - beganAt) / 1_000), cpuUs, walBytes, rssMib: after.rssMax }
    } finally {
      await worker.stop()
      await producer.close()
    }
  },
}
