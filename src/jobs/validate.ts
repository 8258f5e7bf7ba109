import type { StandardSchemaV1 } from '@standard-schema/spec'
import { ForgeError, type ForgeErrorCode, messageOf } from '../kernel/index.js'

/**
 * The schema's output for a value.
 * @throws ForgeError of the given code, with the first three issues and their paths; also when the validator throws
 */
export async function validate(
  schema: StandardSchemaV1 | undefined,
  value: unknown,
  about: { readonly what: string; readonly code: ForgeErrorCode },
): Promise<unknown> {
  if (!schema) return value
  const { what, code } = about
  let result: StandardSchemaV1.Result<unknown>
  try {
    result = await schema['~standard'].validate(value)
  } catch (error) {
    throw new ForgeError(code, `${what}: the validator threw: ${messageOf(error)}.`, {
      cause: error,
    })
  }
  if (typeof result !== 'object' || result === null)
    throw new ForgeError(code, `${what}: the validator gave no result.`)
  if (!result.issues) return result.value
  const shown = result.issues.slice(0, 3).map(describeIssue).join('; ')
  throw new ForgeError(code, `${what}: ${shown}.`, { cause: result.issues })
}

/**
 * The schema's output for an input as it is stored: one that was never given is null there, and a schema for which it
 * is optional wants to see undefined.
 * @throws ForgeError FORGE_INPUT_INVALID
 */
export async function validateStored(
  { name, input: schema }: { readonly name: string; readonly input: StandardSchemaV1 | undefined },
  input: unknown,
): Promise<unknown> {
  const about = { what: `The stored input of '${name}'`, code: 'FORGE_INPUT_INVALID' } as const
  if (input !== null || !schema) return validate(schema, input, about)
  return validate(schema, undefined, about).catch(() => validate(schema, null, about))
}

function describeIssue(issue: StandardSchemaV1.Issue): string {
  const path = (issue.path ?? [])
    .map((part) => String(typeof part === 'object' ? part.key : part))
    .join('.')
    .slice(0, 200)
  return path ? `${path}: ${issue.message}` : issue.message
}
