import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

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

/** The same place with something else in it. */
export function urlWith(
  url: string,
  parts: Partial<Record<'username' | 'password' | 'pathname' | 'port', string>>,
) {
  return Object.assign(new URL(url), parts).href
}
