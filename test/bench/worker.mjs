/* A worker process of one system: counts what starts and tells the benchmark over the channel. */
import { now, sleep } from './measure.mjs'
import { loadSystem } from './systems.mjs'

const { name, ctx, handlerMs, markEvery, held } = JSON.parse(process.argv[2])
const tell = (message) => process.connected && process.send(message)
const cpuSeconds = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

let [started, cpuBefore] = [0, 0]
let rssMax = 0
/** Milliseconds from the enqueue call to the start, of jobs that carry its time; `u` marks the urgent ones. */
let delays = []
let urgent = []
/** When each `markEvery`-th job started. */
const marks = []
/** Null once jobs may run: several processes begin together, when the last of them is there. */
let gate = held ? Promise.withResolvers() : null

function onJob(payload) {
  return gate === null ? begin(payload) : gate.promise.then(() => begin(payload))
}

function begin(payload) {
  const at = now()
  started++
  if (payload.t !== undefined) (payload.u ? urgent : delays).push(at - payload.t)
  if (markEvery > 0 && started % markEvery === 0) marks.push(at)
  return handlerMs > 0 ? sleep(handlerMs) : undefined
}

function report() {
  const rss = process.memoryUsage.rss() / 2 ** 20
  rssMax = Math.max(rssMax, rss)
  return { started, cpuSeconds: cpuSeconds() - cpuBefore, rss, rssMax, marks }
}

process.on('disconnect', () => process.exit(0))
function open() {
  cpuBefore = cpuSeconds()
  gate?.resolve()
  gate = null
}

process.on('message', async ({ type }) => {
  if (type === 'go') open()
  if (type === 'report') tell({ type: 'report', ...report(), delays, urgent })
  if (type === 'forget') [delays, urgent] = [[], []]
  if (type === 'stop') {
    open()
    await worker.stop()
    process.exit(0)
  }
})

const system = await loadSystem(name, ctx.peersFolder)
const worker = await system.startWorker(ctx, onJob)
tell({ type: 'ready' })
setInterval(() => {
  const { started, rssMax } = report()
  tell({ type: 'count', started, rssMax })
}, 25)
