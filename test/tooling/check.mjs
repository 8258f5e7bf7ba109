/*
 * `npm run check`: every script of package.json named check:*, two at a time, in their order there. The first one that
 * fails ends the others; in CI all of them report. `npm run check -- lint types` runs only those.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { root } from './install.mjs'

const atOnce = 2
const failFast = !process.env.CI
const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
const names = Object.keys(scripts).filter((name) => name.startsWith('check:'))
const chosen = process.argv.slice(2)
const unknown = chosen.filter((name) => !names.includes(`check:${name}`))
if (unknown.length > 0) throw new Error(`no such check: ${unknown.join(', ')}; there are ${names.join(', ')}`)

const waiting = names.filter((name) => chosen.length === 0 || chosen.includes(name.slice('check:'.length)))
const running = new Set()
let failed = false

const say = (line) => process.stdout.write(`${line}\n`)

function runGate(name) {
  return new Promise((resolve) => {
    const startedAt = performance.now()
    const env = {
      ...process.env,
      PATH: `${path.join(root, 'node_modules/.bin')}${path.delimiter}${process.env.PATH}`,
    }
    // A process group of its own, so that ending a gate ends its children too.
    const child = spawn(scripts[name], {
      cwd: root,
      env,
      shell: true,
      detached: process.platform !== 'win32',
    })
    running.add(child)
    let output = ''
    child.stdout.on('data', (data) => (output += data))
    child.stderr.on('data', (data) => (output += data))
    child.on('close', (code) => {
      running.delete(child)
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
      const title = `${name.slice('check:'.length).padEnd(10)} ${seconds.padStart(5)} s`
      if (code === 0) say(`ok    ${title}`)
      else if (!failed || !failFast) say(`FAIL  ${title}\n\n${output.trim()}\n`)
      resolve(code === 0)
    })
  })
}

function endOthers() {
  for (const child of running) {
    if (process.platform === 'win32') child.kill()
    else process.kill(-child.pid, 'SIGTERM')
  }
}

async function worker() {
  while (waiting.length > 0 && !(failed && failFast)) {
    if (await runGate(waiting.shift())) continue
    if (failFast && !failed) endOthers()
    failed = true
  }
}

const startedAt = performance.now()
await Promise.all(Array.from({ length: atOnce }, worker))
say(`${failed ? 'check failed' : 'check passed'} in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`)
process.exitCode = failed ? 1 : 0
