import type pg from 'pg'
import { inject } from 'vitest'
import { type AttachOptions, createForge, type Forge, type ForgeNode, type Logger } from '../../src/index.js'
import type { TestDatabaseAccess } from './database.js'

/** What a logger under test heard. */
export interface Heard {
  readonly level: keyof Logger
  readonly message: string
  readonly fields: Readonly<Record<string, unknown>> | undefined
}

export function listeningLogger(): { readonly logger: Logger; readonly heard: Heard[] } {
  const heard: Heard[] = []
  const hear =
    (level: keyof Logger): Logger['debug'] =>
    (message, fields) =>
      void heard.push({ level, message, fields })
  const logger = { debug: hear('debug'), info: hear('info'), warn: hear('warn'), error: hear('error') }
  return { logger, heard }
}

export interface Bundle {
  readonly forge: Forge
  readonly pool: pg.Pool
  readonly heard: Heard[]
  /** Attaches without HTTP and with a short lease; stop it, or use `await using`. */
  attach(options?: AttachOptions): Promise<ForgeNode>
}

/** A fresh instance on the file's database, so that no test sees the definitions of another. */
export function setup(database: TestDatabaseAccess, poolConfig?: pg.PoolConfig): Bundle {
  const forge = createForge()
  const { runtimeRole } = inject('forgeDatabases')
  const asRole = runtimeRole ? { options: `-c role=${runtimeRole}` } : {}
  const pool = database.pool({ ...asRole, ...poolConfig })
  const { logger, heard } = listeningLogger()
  return {
    forge,
    pool,
    heard,
    attach: (options) => forge.attach(null, pool, { logger, stopTimeout: '5s', ...options }),
  }
}
