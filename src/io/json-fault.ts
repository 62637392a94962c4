// Which member of a text is at fault, and why (P-6). Slow and exact: only asked about a text that
// the scan of `json.ts` has found to have one.

import { isKept } from './json-number.js'

export interface Fault {
  /** JSON Pointer (RFC 6901); empty for the whole. */
  readonly path: string
  readonly problem: string
}

const CHANGED_NUMBER = 'is a number that would be changed on its way; send it as a string'
const BACKSLASH = 0x5C

/**
 * Where the first number is that would change, or the first key that is there twice. Only asked
 * about a text that has one.
 */
export function findFault (json: string): Fault {
  interface Level { readonly keys: Set<string> | null, key: string | number }
  const levels: Level[] = []
  const path = (): string => levels.map(({ key }) => `/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`)
    .join('')
  const numbers = /[\d.eE+-]+/y
  let isKey = false
  for (let at = 0; at < json.length; at++) {
    const character = json.charAt(at)
    const level = levels.at(-1)
    if (character === '"') {
      const end = endOfText(json, at)
      if (isKey && level !== undefined && level.keys !== null) {
        level.key = JSON.parse(json.slice(at, end + 1)) as string
        if (level.keys.has(level.key)) return { path: path(), problem: 'is there twice' }
        level.keys.add(level.key)
        isKey = false
      }
      at = end
    } else if (character === '{' || character === '[') {
      isKey = character === '{'
      levels.push(isKey ? { keys: new Set(), key: '' } : { keys: null, key: 0 })
    } else if (character === '}' || character === ']') {
      levels.pop()
      isKey = false
    } else if (character === ',' && level !== undefined) {
      if (level.keys === null) level.key = Number(level.key) + 1
      else isKey = true
    } else if (character >= '0' && character <= '9') {
      numbers.lastIndex = at
      const [literal] = numbers.exec(json) as RegExpExecArray
      if (!isKept(literal)) return { path: path(), problem: CHANGED_NUMBER }
      at += literal.length - 1
    }
  }
  return { path: '', problem: CHANGED_NUMBER }
}

/** Index of the quote that ends the string that starts at `start`. */
function endOfText (json: string, start: number): number {
  let end = start
  for (;;) {
    end = json.indexOf('"', end + 1)
    let before = end - 1
    while (json.charCodeAt(before) === BACKSLASH) before--
    if ((end - before) % 2 === 1) return end
  }
}
