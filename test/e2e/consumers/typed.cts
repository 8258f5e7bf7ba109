import http = require('node:http')
import { Pool } from 'pg'
import { createForge, type ForgeError } from 'forge'

export async function main(): Promise<ForgeError | undefined> {
  const forge = createForge()
  const node = await forge.attach(http.createServer(), new Pool())
  await node.stop({ timeout: '5s' })
  return undefined
}
