import { readFileSync } from 'node:fs'
import type { AttachOptions } from '../../src/index.js'
import { type NodeProcess, spawnNode } from '../../src/testing/index.js'

export interface Started {
  readonly kind: 'started' | 'aborted' | 'ended'
  readonly id: string
  readonly token: string
  readonly n: number
}

/** True in `npm run chaos`: the long form of every test here. */
export const long = process.env.FORGE_CHAOS === 'long'

export interface NodeOrders {
  readonly options: AttachOptions
  readonly produceMs?: number
  /** Of what it produces. */
  readonly delayMs?: number
  readonly quiet?: boolean
  /** A role that it leads when it can. */
  readonly lead?: string
  /** Has a schedule that fires each second. */
  readonly ticks?: boolean
  /** Flags of Node. */
  readonly execArgv?: readonly string[]
  /** What starts Node, where it is not started directly. */
  readonly command?: readonly string[]
  /** Added to its environment. */
  readonly env?: Readonly<Record<string, string>>
}

/** A node of a chaos test as a real process, running from the sources. */
export async function startNode(
  url: string,
  { env, command = [], execArgv = [], ...orders }: NodeOrders,
): Promise<NodeProcess> {
  const [execPath = process.execPath, ...before] = [...command, process.execPath]
  const node = spawnNode({
    execPath,
    script: new URL('./worker.ts', import.meta.url),
    args: [JSON.stringify({ url, ...orders })],
    execArgv: [
      ...before,
      ...execArgv,
      '--import',
      new URL('../support/typescript.mjs', import.meta.url).href,
    ],
    env: { ...process.env, NODE_ENV: 'test', ...env },
  })
  try {
    await node.ready({ deadlineMs: 120_000 })
    return node
  } catch (error) {
    await node[Symbol.asyncDispose]()
    throw error
  }
}

export function isAbout(message: unknown, kind: Started['kind'], id?: string): message is Started {
  const said = message as Partial<Started> | null
  return said?.kind === kind && (id === undefined || said.id === id)
}

/** Lets it stop by itself and waits for its end. */
export async function stopNode(node: NodeProcess): Promise<number | null> {
  await node.send({ kind: 'stop' })
  return (await node.exited).code
}

/** Memory of a process that is in RAM now, in MB. Linux only. */
export function residentMb(pid: number): number {
  const [, kb] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kb) / 1_024
}
