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

function describeIssue(issue: StandardSchemaV1.Issue): string {
  const path = (issue.path ?? [])
    .map((part) => String(typeof part === 'object' ? part.key : part))
    .join('.')
    .slice(0, 200)
  return path ? `${path}: ${issue.message}` : issue.message
}
