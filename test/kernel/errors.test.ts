import { expect, test, vi } from 'vitest'
import * as kernel from '../../src/kernel/index.js'

const { codeOf, errorCatalogue, ForgeError, isConnectionError, isForgeError, messageOf } = kernel

test('an error has a stable code, says what to do, and keeps its cause', () => {
  const cause = new Error('underneath')
  const error = new ForgeError('FORGE_DATABASE_MISSING', 'There is no "shop".', { cause })
  expect(error).toBeInstanceOf(Error)
  expect(error).toMatchObject({ name: 'ForgeError', code: 'FORGE_DATABASE_MISSING', cause })
  expect(error.message).toBe(`There is no "shop". ${errorCatalogue.FORGE_DATABASE_MISSING}`)
  expect(new ForgeError('FORGE_STOPPED').message).toBe(errorCatalogue.FORGE_STOPPED)
  expect(Object.keys(error)).not.toContain('cause')
})

test('errors with a class of their own carry its name and their code', () => {
  expect(new kernel.DuplicateName('mail.welcome')).toMatchObject({
    name: 'DuplicateName',
    code: 'FORGE_DUPLICATE_NAME',
    message: expect.stringContaining("'mail.welcome' is taken."),
  })
  expect(new kernel.AlreadyAttached()).toMatchObject({
    name: 'AlreadyAttached',
    code: 'FORGE_ALREADY_ATTACHED',
  })
  expect(new kernel.NotAttached()).toMatchObject({ name: 'NotAttached', code: 'FORGE_NOT_ATTACHED' })
})

test('every code begins with FORGE_, and its text is a sentence', () => {
  for (const [code, text] of Object.entries(errorCatalogue)) {
    expect(code).toMatch(/^FORGE_[A-Z]+(_[A-Z]+)*$/)
    expect(text, code).toMatch(/^[A-Za-z].*[a-z).]$/)
  }
})

test('an error of another copy of the package is known by its mark', async () => {
  vi.resetModules()
  const copy = await import('../../src/kernel/index.js')
  const foreign = new copy.NotAttached()
  expect(foreign).not.toBeInstanceOf(ForgeError)
  expect(isForgeError(foreign)).toBe(true)
  expect(isForgeError(foreign, 'FORGE_NOT_ATTACHED')).toBe(true)
  expect(isForgeError(foreign, 'FORGE_STOPPED')).toBe(false)
  expect(foreign.code).toBe('FORGE_NOT_ATTACHED')
})

test.each([null, undefined, 'FORGE_STOPPED', 7, new Error('x'), { code: 'FORGE_STOPPED' }, () => {}])(
  'what looks like an error of forge is none without the mark: %j',
  (value) => {
    expect(isForgeError(value)).toBe(false)
    expect(isForgeError(value, 'FORGE_STOPPED')).toBe(false)
  },
)

const coded = (code: unknown): Error => Object.assign(new Error('x'), { code })

test.each([
  ...['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN'],
  ...['57P01', '57P02', '57P03', '08006', '53300', '25006'],
  ...['FORGE_CONNECTION_LOST', 'FORGE_DATABASE_UNREACHABLE', 'FORGE_DEADLINE'],
])('%s is a failure of the connection', (code) => {
  expect(isConnectionError(coded(code))).toBe(true)
})

test.each([
  'Connection terminated',
  'Connection terminated unexpectedly',
  'Client has encountered a connection error and is not queryable',
  'Client was closed and is not queryable',
  'timeout expired',
  'Query read timeout',
])('so is an error without a code that says: %s', (message) => {
  expect(isConnectionError(new Error(message))).toBe(true)
})

test.each([
  ...['23505', '40001', '40P01', '42501', '55P03', '57014', '28P01', '3D000'],
  ...['FORGE_COMMIT_UNKNOWN', 'FORGE_STOPPED', 'FORGE_TX_FINISHED', 5, undefined],
])('%s is not', (code) => {
  expect(isConnectionError(coded(code))).toBe(false)
})

test.each([null, undefined, 'Connection terminated', 57])('%j, thrown as it is, is not', (value) => {
  expect(isConnectionError(value)).toBe(false)
})

test('codes and messages are read from whatever was thrown', () => {
  expect([coded('X'), coded(5), new Error('x'), null, undefined, 'X', { code: 'Y' }].map(codeOf)).toEqual([
    ...['X', '', '', '', '', '', 'Y'],
  ])
  const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' })
  expect(
    [
      ...[new Error('plain'), new TypeError(), 'text', null, undefined, 7, Symbol('s')],
      new AggregateError([refused, new Error('second')]),
      new AggregateError([]),
    ].map(messageOf),
  ).toEqual([
    ...['plain', 'TypeError', 'text', 'null', 'undefined', '7', 'Symbol(s)'],
    'connect ECONNREFUSED 127.0.0.1:1; second',
    'AggregateError',
  ])
})

test('values that do not want to be read are looked at all the same', () => {
  const explode = (): never => {
    throw new Error('touched')
  }
  const hostile: unknown[] = [
    Object.create(null),
    { toString: explode },
    new Proxy({}, { get: explode, getPrototypeOf: explode }),
    Object.defineProperty(new Error('x'), 'message', { get: explode }),
  ]
  expect(hostile.map(messageOf)).toEqual(Array(4).fill('unreadable error'))
  hostile.push(
    new Proxy({}, { get: explode, has: explode }),
    Object.defineProperty({}, 'code', { get: explode }),
  )
  expect(hostile.map(codeOf)).toEqual(Array(6).fill(''))
  expect(hostile.some((value) => isForgeError(value) || isConnectionError(value))).toBe(false)
})
