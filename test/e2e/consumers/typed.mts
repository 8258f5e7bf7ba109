/* Compiles against the types of the package, with nothing skipped. */
import express from 'express'
import pg from 'pg'
import { forge, ForgeError } from 'forge'

const double = forge.job('typed.double', {
  queue: 'numbers',
  retry: { attempts: 3, base: '1s' },
  timeout: '30s',
  async run(input: { n: number }, job) {
    job.signal.throwIfAborted()
    return { doubled: input.n * 2 }
  },
})

export async function main(): Promise<number> {
  await using node = await forge.attach(express(), new pg.Pool(), { concurrency: 4 })
  const handle = await double.enqueue({ n: 21 }, { delay: '1s' })
  const id: string = handle.id
  if (!(await node.health()).live) throw new Error(id)
  // @ts-expect-error the input has a shape
  await double.enqueue({ n: 'twenty-one' })
  // @ts-expect-error an option has a name
  await forge.attach(null, new pg.Pool(), { concurency: 4 })
  try {
    const { doubled } = await handle.result({ timeout: '30s' })
    return doubled
  } catch (error) {
    if (error instanceof ForgeError) return error.code.length
    throw error
  }
}
