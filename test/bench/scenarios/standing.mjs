/* What a worker costs while it has nothing to do. */
import { sleep } from '../measure.mjs'
import { startWorker } from '../workers.mjs'

/** Sessions tell what they did late: one that idles, after up to ten seconds. The start must be told before. */
const settleMs = 12_000

export const idle = {
  name: 'idle',
  title: 'An idle worker',
  about:
    'One process with all roles and no jobs, over 30 s: statements and transactions a second, and its memory.',
  systems: ['forge', 'peers'],
  metric: 'transactions',
  better: 'lower',
  chart: { unit: 'per second', metrics: ['statements', 'transactions'] },
  points: [{ name: 'no jobs' }],
  async run({ system, ctx, server, ms }) {
    const worker = await startWorker({ system, ctx })
    try {
      await sleep(settleMs)
      const seconds = Math.max(2, ms(30_000) / 1_000)
      const read = async () => [
        await server.statements(ctx.database),
        await server.transactions(ctx.database),
        server.cpuSeconds(),
        (await worker.report()).cpuSeconds,
      ]
      const before = await read()
      await sleep(seconds * 1_000)
      const after = await read()
      const perSecond = (i) => (before[i] === null ? null : (after[i] - before[i]) / seconds)
      const [statements, transactions, serverCpu, workerCpu] = [0, 1, 2, 3].map(perSecond)
      return {
        statements,
        transactions,
        serverCpuPercent: serverCpu === null ? null : serverCpu * 100,
        workerCpuPercent: workerCpu * 100,
        rssMib: (await worker.report()).rss,
      }
    } finally {
      await worker.stop()
    }
  },
}
