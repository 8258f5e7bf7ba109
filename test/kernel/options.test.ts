import { describe, expect, expectTypeOf, test } from 'vitest'
import { envName, type ForgeError, nearest, option, resolveOptions } from '../../src/kernel/index.js'

const doc = 'what it means'
const table = {
  concurrency: option.integer({ doc, default: 10, min: 1, max: 1_000 }),
  stopTimeout: option.duration({ doc, default: 20_000, shows: "'20s'" }),
  signals: option.flag({ doc, default: false }),
  migrate: option.oneOf({ doc, default: 'auto', of: ['auto', 'check', 'off'] }),
  roles: option.listOf({ doc, default: ['worker', 'gateway'], of: ['worker', 'gateway', 'scheduler'] }),
  title: option.custom<string>({
    doc,
    default: 'forge',
    shows: 'forge',
    read: (value) => String(value),
  }),
  lease: {
    ms: option.duration({ doc, default: 10_000, min: 500, shows: "'10s'" }),
    renewMs: option.duration({ doc, default: 3_000, shows: "'3s'" }),
  },
}

const resolve = (given?: unknown, env: Record<string, string> = {}) => resolveOptions(table, given, env)

function refusal(given: unknown, env: Record<string, string> = {}): { code: string; message: string } {
  try {
    resolve(given, env)
  } catch (error) {
    const { code, message } = error as ForgeError
    return { code, message }
  }
  throw new Error('accepted')
}

describe('where a value comes from', () => {
  test('without anything given, the defaults', () => {
    const options = resolve()
    expect(options).toEqual({
      concurrency: 10,
      stopTimeout: 20_000,
      signals: false,
      migrate: 'auto',
      roles: ['worker', 'gateway'],
      title: 'forge',
      lease: { ms: 10_000, renewMs: 3_000 },
    })
    expectTypeOf(options.lease.ms).toEqualTypeOf<number>()
    expectTypeOf(options.migrate).toEqualTypeOf<'auto' | 'check' | 'off'>()
  })

  test('the result cannot be changed, on no level', () => {
    const options = resolve()
    expect(Object.isFrozen(options)).toBe(true)
    expect(Object.isFrozen(options.lease)).toBe(true)
  })

  test('what is given goes before the environment, and that before the default', () => {
    const env = { FORGE_CONCURRENCY: '7', FORGE_LEASE_RENEW_MS: '1s', FORGE_LEASE_MS: '5s' }
    expect(resolve({ concurrency: 3, lease: { ms: '2s' } }, env)).toMatchObject({
      concurrency: 3,
      lease: { ms: 2_000, renewMs: 1_000 },
    })
    expect(resolve({}, env).concurrency).toBe(7)
  })

  test('undefined counts as not given, on every level; so does an empty environment variable', () => {
    const env = { FORGE_CONCURRENCY: '7', FORGE_SIGNALS: '' }
    expect(resolve({ concurrency: undefined, lease: undefined, signals: undefined }, env)).toMatchObject({
      concurrency: 7,
      signals: false,
      lease: { ms: 10_000 },
    })
  })

  test('each kind reads its text from the environment', () => {
    const env = {
      FORGE_CONCURRENCY: '25',
      FORGE_STOP_TIMEOUT: '1500',
      FORGE_SIGNALS: '1',
      FORGE_MIGRATE: 'check',
      FORGE_ROLES: ' scheduler, worker ,,worker',
      FORGE_TITLE: 'not read: this option has no environment equivalent',
    }
    expect(resolve({}, env)).toMatchObject({
      concurrency: 25,
      stopTimeout: 1_500,
      signals: true,
      migrate: 'check',
      roles: ['scheduler', 'worker'],
      title: 'forge',
    })
    expect(resolve({}, { FORGE_STOP_TIMEOUT: '2m', FORGE_SIGNALS: 'false' })).toMatchObject({
      stopTimeout: 120_000,
      signals: false,
    })
  })

  test('the name of an environment variable follows from the path', () => {
    expect(['roles', 'stopTimeout', 'lease.renewMs', 'a1B.cD'].map(envName)).toEqual([
      'FORGE_ROLES',
      'FORGE_STOP_TIMEOUT',
      'FORGE_LEASE_RENEW_MS',
      'FORGE_A1_B_C_D',
    ])
  })
})

describe('an unknown option', () => {
  test.each([
    [{ concurency: 3 }, 'concurency', 'concurrency'],
    [{ Roles: [] }, 'Roles', 'roles'],
    [{ timeoutStop: 3 }, 'timeoutStop', null],
    [{ lease: { renewms: 3 } }, 'lease.renewms', 'renewMs'],
    [{ lease: { concurrency: 3 } }, 'lease.concurrency', null],
    [JSON.parse('{"__proto__":{"concurrency":3}}'), '__proto__', null],
    [{ constructor: 1 }, 'constructor', null],
  ])('%j is refused, and the nearest name is named', (given, path, near) => {
    const { code, message } = refusal(given)
    expect(code).toBe('FORGE_OPTION_UNKNOWN')
    expect(message).toContain(near ? `'${path}': Did you mean '${near}'?` : `'${path}': Known: `)
  })

  test('of a hostile length is shown cut', () => {
    expect(refusal({ ['x'.repeat(100_000)]: 1 }).message.length).toBeLessThan(300)
  })

  test('in the environment is nobody’s business', () => {
    expect(resolve({}, { FORGE_CONCURENCY: '3', FORGE_: 'x' }).concurrency).toBe(10)
  })
})

describe('a bad value', () => {
  test.each<[given: unknown, message: string]>([
    [{ concurrency: 0 }, 'Option concurrency must be a whole number from 1 to 1000.'],
    [{ concurrency: 1_001 }, 'Option concurrency must be a whole number from 1 to 1000.'],
    [{ concurrency: 1.5 }, 'Option concurrency must be a whole number'],
    [{ concurrency: '5' }, 'Option concurrency must be a whole number'],
    [{ concurrency: null }, 'Option concurrency must be a whole number'],
    [{ concurrency: Number.NaN }, 'Option concurrency must be a whole number'],
    [{ signals: 'yes' }, 'Option signals must be true or false.'],
    [{ migrate: 'chek' }, "Option migrate must be one of auto, check, off; did you mean 'check'?"],
    [{ migrate: 7 }, 'Option migrate must be one of auto, check, off.'],
    [{ roles: 'worker' }, 'Option roles must be a list.'],
    [{ roles: ['worker', 'sheduler'] }, "did you mean 'scheduler'?"],
    [{ lease: { ms: 100 } }, 'Option lease.ms must be at least 500 ms.'],
    [{ lease: 5 }, 'lease must be an object.'],
    [{ lease: null }, 'lease must be an object.'],
    [{ lease: [] }, 'lease must be an object.'],
    ['worker', 'options must be an object.'],
    [null, 'options must be an object.'],
  ])('%j', (given, message) => {
    expect(refusal(given)).toEqual({
      code: 'FORGE_OPTION_INVALID',
      message: expect.stringContaining(message),
    })
  })

  test('of a duration says so with its own code', () => {
    expect(refusal({ lease: { ms: 'soon' } })).toMatchObject({
      code: 'FORGE_DURATION_INVALID',
      message: expect.stringContaining("Option lease.ms is 'soon'."),
    })
  })

  test.each([
    ['FORGE_CONCURRENCY', 'many'],
    ['FORGE_CONCURRENCY', '-1'],
    ['FORGE_CONCURRENCY', '99999999999999999999'],
    ['FORGE_SIGNALS', 'yes'],
    ['FORGE_SIGNALS', '__proto__'],
    ['FORGE_MIGRATE', 'never'],
    ['FORGE_ROLES', 'worker,guest'],
    ['FORGE_LEASE_MS', '100ms'],
  ])('in the environment variable %s=%s names the variable', (name, text) => {
    const { code, message } = refusal({}, { [name]: text })
    expect(code).toBe('FORGE_OPTION_INVALID')
    expect(message).toContain(`Environment variable ${name} must `)
  })
})

test('the nearest name is one that could have been meant, or none', () => {
  const known = ['roles', 'schema', 'concurrency']
  expect(['rolls', 'SCHEMA', 'concurency', 'concurrently'].map((word) => nearest(word, known))).toEqual([
    'roles',
    'schema',
    'concurrency',
    'concurrency',
  ])
  expect(['database', '', 'x'.repeat(10_000)].map((word) => nearest(word, known))).toEqual([null, null, null])
})
