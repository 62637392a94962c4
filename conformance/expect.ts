// How a check says that a rule does not hold: one sentence of what was expected and what was seen,
// and nothing thrown by a library. NotTested is no failure: it says what the server or the command
// line would have to offer for the check to be made.

export class Failure extends Error {
  override readonly name = 'Failure'
}

export class NotTested extends Error {
  override readonly name = 'NotTested'
}

/** Ends the check: it needs something that this run does not have. */
export function notTested (needs: string): never {
  throw new NotTested(`needs ${needs}`)
}

export function fail (expected: string, got: unknown): never {
  throw new Failure(`expected ${expected}, got ${show(got)}`)
}

export function expect (holds: boolean, expected: string, got: unknown): asserts holds {
  if (!holds) fail(expected, got)
}

/** Compares by value: numbers, strings, null, and what JSON can say. */
export function expectEqual (got: unknown, want: unknown, what: string): void {
  if (!sameJson(got, want)) fail(`${what} ${show(want)}`, got)
}

export function sameJson (left: unknown, right: unknown): boolean {
  if (left === right) return true
  if (typeof left !== 'object' || typeof right !== 'object' || left === null || right === null) return false
  if (Array.isArray(left) !== Array.isArray(right)) return false
  const names = Object.keys(left)
  if (names.length !== Object.keys(right).length) return false
  return names.every((name) => Object.hasOwn(right, name) &&
    sameJson((left as Record<string, unknown>)[name], (right as Record<string, unknown>)[name]))
}

/** A value short enough for one line of a report. */
export function show (value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value instanceof Error) return value.message
  const text = typeof value === 'string' ? value : JSON.stringify(value) ?? String(value)
  return text.length > 240 ? `${text.slice(0, 240)}… (${text.length} characters)` : text
}
