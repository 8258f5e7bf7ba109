import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { quietLogger, silentLogger } from '../../src/kernel/index.js'

test('by default warnings and errors become process warnings with their code, and the rest is not heard', async () => {
  const seen: Error[] = []
  const note = (warning: Error): void => void seen.push(warning)
  process.on('warning', note)
  onTestFinished(() => void process.off('warning', note))
  for (const logger of [silentLogger, quietLogger]) {
    logger.debug('debug')
    logger.info('info')
    logger.warn('warn')
    const heard = logger === quietLogger ? once(process, 'warning') : null
    logger.error('error', { code: 'FORGE_DATABASE_AUTH', other: 1 })
    await heard
  }
  expect(seen.map(({ name, message }) => [name, message])).toEqual([
    ['ForgeWarning', 'warn'],
    ['ForgeWarning', 'error'],
  ])
  expect(seen[1]).toMatchObject({ code: 'FORGE_DATABASE_AUTH' })
})
