/** What can go wrong between this page and the server, as one value that a screen can show. */
import type { Problem } from './types'

/**
 * `problem`: the server said what is wrong, in the reader's language. `network`: it could not be reached.
 * `unexpected`: it answered with something that is not a problem document (a proxy's page, say).
 */
export type Failure =
  | { kind: 'problem'; problem: Problem }
  | { kind: 'network' }
  | { kind: 'unexpected'; status: number }

/** Carries a `Failure` through a promise. */
export class ApiError extends Error {
  constructor(readonly failure: Failure) {
    super(failure.kind === 'problem' ? failure.problem.title : failure.kind)
    this.name = 'ApiError'
  }
}

export function isProblem(value: unknown): value is Problem {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as Problem).title === 'string' &&
    typeof (value as Problem).status === 'number'
  )
}

/** The failure inside a caught error; anything that is not an `ApiError` is a defect and is thrown on. */
export function failureOf(error: unknown): Failure {
  if (error instanceof ApiError) return error.failure
  throw error
}
