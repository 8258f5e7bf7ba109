/**
 * testing: the kit with which forge tests itself, and with which you test what you build on it (`forge/testing`).
 *
 * For an app's own tests `testForge` attaches a forge whose jobs run when the test says so: in place, or when it drains.
 *
 * To break things on purpose: a test starts real node processes (`spawnNode`), lets them reach PostgreSQL through a network that obeys
 * (`startProxy`), breaks processes and network as it likes, records what happened, and hands the record to a pure
 * function (`checkHistory`) that knows what may never happen, whatever was broken:
 *
 *   test ── spawnNode ──▶ node process ── startProxy ──▶ PostgreSQL
 *     │  kill, pause, resume     cut, blackhole, latency, cutAfterBytes
 *     └─ events: enqueued, claimed, finalized, terminal … ──▶ checkHistory ──▶ ok, or findings with the job's name
 *
 * When things fail: each wait has a deadline and throws FORGE_TEST_DEADLINE, saying what it waited for and what it saw;
 * a wait for a process that has ended throws FORGE_TEST_PROCESS_ENDED at once. Processes and proxies are disposable
 * (`await using`); a child ends with its parent. The proxy listens on the loopback only.
 */
export { startTestDatabase, type TestDatabase } from './database.js'
export { type DrainFailure, type DrainOptions, type DrainReport } from './drain.js'
export { type Expected, type JobRef } from './expect.js'
export { testForge, type TestForge, type TestForgeOptions } from './test-forge.js'
export { type WaitTarget } from './wait.js'
export { report, reportReady } from './child.js'
export { type Deadline } from './deadline.js'
export { type FinalState, type HistoryEvent } from './history-events.js'
export { checkHistory, type Findings, type HistoryLimits, type HistoryReport } from './history.js'
export { type NodeExit, type NodeProcess, spawnNode, type SpawnNodeOptions } from './processes.js'
export { type Cut, type CutOptions } from './proxy-cut.js'
export { type ProxyConnection } from './proxy-connection.js'
export { type Proxy, type ProxyOptions, startProxy } from './proxy.js'
