import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { run } from '../../src/cli/index.js'

const hooks = new URL('../support/typescript.mjs', import.meta.url).href
const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** The command as a process of its own, from the sources; its environment holds nothing but what is given. */
export function forge(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const options = { env: { PATH: process.env.PATH, ...env }, timeout: 30_000 }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ['--import', hooks, main, ...args], options, (error, stdout, stderr) => {
      const code = error ? error.code : 0
      if (typeof code === 'number') resolve({ code, stdout, stderr })
      else reject(new Error(`The command did not end by itself: ${stderr}`, { cause: error }))
    })
  })
}

/** The same in this process, with its environment. */
export async function call(args: readonly string[]): Promise<Ended> {
  const written = { stdout: '', stderr: '' }
  const code = await run(args, {
    out: (text) => void (written.stdout += text),
    err: (text) => void (written.stderr += text),
  })
  return { code, ...written }
}

/** A process whose output nobody reads: the pipe is closed before it writes. */
export async function unread(args: readonly string[]): Promise<{ code: number | null; stderr: string }> {
  const child = spawn(process.execPath, ['--import', hooks, main, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.destroy()
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stderr }
}

/** The same place with something else in it. */
export function urlWith(
  url: string,
  parts: Partial<Record<'username' | 'password' | 'pathname' | 'port', string>>,
) {
  return Object.assign(new URL(url), parts).href
}
